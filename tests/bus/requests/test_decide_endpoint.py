"""The decide endpoint against a real server."""

import asyncio
from collections.abc import Mapping

import pytest

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.bus.client.faults import NoRespondersError
from router.bus.requests.decide_endpoint import DecideEndpoint, Reply
from tests.bus.conftest import Heard
from tests.servers import NatsProcess

Request = tuple[bytes, Mapping[str, str] | None, str | None, Reply | None]


def endpoint(bus: Bus, name: str) -> tuple[DecideEndpoint, list[Request]]:
    """An endpoint on a subject of the test's own, that answers each request with its data."""
    seen: list[Request] = []

    def handle(data: bytes, headers: Mapping[str, str] | None, tenant: str | None, reply: Reply | None) -> None:
        seen.append((data, headers, tenant, reply))
        if reply is not None:
            reply(data, {"x-echo": "1"} if headers else None)

    return DecideEndpoint(bus, handle, "pod-7", subject=f"{name}.decide"), seen


async def test_every_request_gets_the_answer_with_the_pods_name(bus: Bus, client: Bus, name: str) -> None:
    """The reply carries `router-pod`, beside the headers of the handler."""
    made, _ = endpoint(bus, name)
    await made.open()
    plain = await client.request(f"{name}.decide", b"one")
    rich = await client.request(f"{name}.decide", b"two", {"trace_id": "t"})
    assert (plain.data, plain.headers) == (b"one", {"router-pod": "pod-7"})
    assert (rich.data, rich.headers) == (b"two", {"x-echo": "1", "router-pod": "pod-7"})
    await made.pause()


async def test_the_subject_names_the_tenant(bus: Bus, client: Bus, name: str) -> None:
    """Everything after `decide.` is the tenant, dots included and valid or not; the plain subject names none."""
    made, seen = endpoint(bus, name)
    await made.open()
    for subject in ("decide", "decide.acme", "decide.a.b.c", "decide.no$pe", "decide.ä"):
        await client.request(f"{name}.{subject}", b"")
    assert [tenant for _, _, tenant, _ in seen] == [None, "acme", "a.b.c", "no$pe", "ä"]
    await made.pause()


async def test_one_pod_of_the_group_answers(bus: Bus, client: Bus, name: str) -> None:
    """Two endpoints in one queue group share the requests: each is handled once."""
    first, one = endpoint(bus, name)
    second, two = endpoint(client, name)
    await first.open()
    await second.open()
    answers = await asyncio.gather(*(bus.request(f"{name}.decide", b"%d" % index) for index in range(100)))
    assert len(answers) == 100
    assert len(one) + len(two) == 100
    assert one
    assert two
    await first.pause()
    await second.pause()


async def test_a_request_without_reply_subject_has_no_reply(bus: Bus, client: Bus, name: str) -> None:
    """Fire and forget reaches the handler with reply None."""
    made, seen = endpoint(bus, name)
    await made.open()
    client.publish(f"{name}.decide", b"x")
    await client.request(f"{name}.decide", b"y")
    assert [reply is None for _, _, _, reply in seen] == [True, False]
    await made.pause()


async def test_pausing_loses_nothing(bus: Bus, client: Bus, name: str) -> None:
    """Of requests sent all the time while one of two endpoints pauses, each is answered."""
    first, one = endpoint(bus, name)
    second, _ = endpoint(client, name)
    await first.open()
    await second.open()

    async def ask(index: int) -> bytes:
        return (await client.request(f"{name}.decide", b"%d" % index, timeout_s=30)).data

    flight = [asyncio.create_task(ask(index)) for index in range(500)]
    await client.flush()
    await first.pause()
    handled = len(one)
    flight += [asyncio.create_task(ask(index)) for index in range(500, 700)]
    assert await asyncio.gather(*flight) == [b"%d" % index for index in range(700)]
    assert len(one) == handled
    await second.pause()


async def test_an_endpoint_opens_again(bus: Bus, client: Bus, name: str) -> None:
    """pause() is not the end."""
    made, _ = endpoint(bus, name)
    await made.open()
    await made.pause()
    with pytest.raises(NoRespondersError):
        await client.request(f"{name}.decide", b"closed")
    await made.open()
    assert (await client.request(f"{name}.decide", b"again")).data == b"again"
    await made.pause()


async def test_a_reply_that_cannot_be_sent_is_logged(
    bus: Bus, client: Bus, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Too large for the server: the connection stays, the caller times out, the log says so."""
    heard = Heard()

    def handle(_d: bytes, _h: Mapping[str, str] | None, _t: str | None, reply: Reply | None) -> None:
        assert reply is not None
        reply(bytes(bus.max_payload), None)
        heard(1)

    made = DecideEndpoint(bus, handle, "p", subject=f"{name}.decide")
    await made.open()
    client.send(wire.publish(f"{name}.decide".encode(), reply=b"_INBOX.nobody", block=b"", payload=b""))
    await heard.until(1)
    assert [r.getMessage() for r in caplog.records if "decide reply could not be sent" in r.message] != []
    assert await bus.rtt() < 2
    await made.pause()


async def test_a_header_that_comes_twice_is_joined(bus: Bus, client: Bus, name: str) -> None:
    """Two tenants in one header block are one invalid tenant, not the last of them."""
    made, seen = endpoint(bus, name)
    await made.open()
    block = b"NATS/1.0\r\ntenant_id: a\r\ntenant_id: b\r\ntrace_id: t\r\ntrace_id: t\r\n\r\n"
    client.send(wire.publish(f"{name}.decide".encode(), reply=b"", block=block, payload=b""))
    await client.request(f"{name}.decide", b"")
    assert seen[0][1] == {"tenant_id": "a, b", "trace_id": "t"}
    await made.pause()


async def test_the_endpoint_outlives_the_server(own_server: NatsProcess, own_bus: Bus, name: str) -> None:
    """After kill -9 and a restart requests are answered again, without anybody opening it."""
    made, _ = endpoint(own_bus, name)
    back = Heard()
    own_bus.on_connect.append(back)
    await made.open()
    await asyncio.to_thread(own_server.kill)
    await asyncio.to_thread(own_server.start)
    await back.until(1)
    assert (await own_bus.request(f"{name}.decide", b"still here")).data == b"still here"
    await made.pause()


async def test_pausing_without_a_server_ends(own_server: NatsProcess, own_bus: Bus, name: str) -> None:
    """A pod that is told to go while NATS is away goes."""
    made, _ = endpoint(own_bus, name)
    gone = Heard()
    own_bus.on_disconnect.append(gone)
    await made.open()
    await asyncio.to_thread(own_server.kill)
    await gone.until(1)
    await asyncio.wait_for(made.pause(), 1)
    assert made._subscriptions == []
