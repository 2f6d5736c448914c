"""Services, announcements and worker listeners."""

import asyncio
from collections.abc import Mapping

from router.bus import announce, workers
from router.bus.client.connection import Bus
from router.bus.requests.service import serve
from router.wire import subjects
from tests.bus.conftest import Heard


def fault(code: str, message: str) -> bytes:
    """An error reply."""
    return f"{code}: {message}".encode()


async def echo(data: bytes, headers: Mapping[str, str], subject: str) -> tuple[bytes, Mapping[str, str]]:
    """Data, a header and the subject back; `boom` fails, `sleep` never ends, `huge` is too large."""
    if data == b"boom":
        raise KeyError("secret detail")
    if data == b"sleep":
        await asyncio.Event().wait()
    if data == b"huge":
        return bytes(5 << 20), {}
    return data + b" on " + subject.encode(), {"x": headers.get("x", "none")}


async def test_a_request_is_answered_with_headers(bus: Bus, client: Bus, name: str) -> None:
    """The handler sees data, headers and the literal subject; its reply and the service's own headers come back."""
    service = await serve(bus, f"{name}.admin.*", "q", echo, fault, headers={"router-pod": "p"})
    answer = await client.request(f"{name}.admin.list", b"hi", {"x": "y"})
    assert answer.data == f"hi on {name}.admin.list".encode()
    assert answer.headers == {"x": "y", "router-pod": "p"}
    await service.stop()


async def test_a_failing_handler_still_answers(bus: Bus, client: Bus, name: str) -> None:
    """An exception is `internal`, without its text; an endless handler `unavailable`; a huge answer `internal`."""
    service = await serve(bus, name, "q", echo, fault, timeout_s=0.1)
    assert (await client.request(name, b"boom")).data == b"internal: the request failed; see the router's log"
    assert (await client.request(name, b"sleep")).data.startswith(b"unavailable: ")
    assert (await client.request(name, b"huge")).data.startswith(b"internal: the reply is larger")
    assert service.faults == 2
    await service.stop()


async def test_too_many_at_once_are_refused_at_once(bus: Bus, client: Bus, name: str) -> None:
    """Above the bound there is a quick `service_overloaded`, and the others are served."""
    service = await serve(bus, name, "q", echo, fault, max_in_flight=2, timeout_s=0.3)
    sleepers = [asyncio.create_task(client.request(name, b"sleep")) for _ in range(2)]
    await client.flush()
    assert (await client.request(name, b"hi")).data.startswith(b"service_overloaded: ")
    assert all(answer.data.startswith(b"unavailable") for answer in await asyncio.gather(*sleepers))
    assert (await client.request(name, b"hi")).data == b"hi on " + name.encode()
    await service.stop()


async def test_stopping_answers_what_came(bus: Bus, client: Bus, name: str) -> None:
    """Requests that were in flight when stop() began have their answer."""
    go = asyncio.Event()

    async def wait(data: bytes, _headers: Mapping[str, str], _subject: str) -> tuple[bytes, Mapping[str, str]]:
        await go.wait()
        return data, {}

    service = await serve(bus, name, "q", wait, fault)
    asked = asyncio.create_task(client.request(name, b"x"))
    while not service._tasks:
        await client.rtt()
    stopping = asyncio.create_task(service.stop())
    await bus.flush()
    assert not stopping.done()
    go.set()
    await stopping
    assert (await asked).data == b"x"


async def test_every_pod_hears_a_policy_change(bus: Bus, client: Bus) -> None:
    """The announcement reaches both pods, the announcer too; one that cannot be read is passed over."""
    here, there = Heard(), Heard()
    first, second = await announce.listen(bus, here), await announce.listen(client, there)
    for unreadable in (b"{}", b"", b"\xff", b'{"tenant_id":"\xff","revision":1}', b"[" * 100_000):
        bus.publish(announce.SUBJECT, unreadable)
    announce.announce(bus, "acme", 7)
    assert await here.until(1) == [("acme", 7)]
    assert await there.until(1) == [("acme", 7)]
    await first.close()
    await second.close()


async def test_worker_messages_reach_the_listeners(bus: Bus, client: Bus) -> None:
    """Every pod hears a heartbeat; a dead letter is heard by one of them."""
    beats, letters = Heard(), Heard()
    made = []
    for each in (bus, client):
        made += [await workers.hear_heartbeats(each, beats), await workers.hear_dead_letters(each, letters)]
    client.publish(subjects.HEARTBEAT, b"alive", {"h": "1"})
    client.publish(subjects.WORKER_DEAD_LETTER, b"dead")
    assert await beats.until(2) == [(b"alive", {"h": "1"})] * 2
    await letters.until(1)
    await client.flush()
    await bus.flush()
    assert letters.items == [(b"dead", {})]
    for subscription in made:
        await subscription.close()
