"""One connection, kept for ever."""
# ruff: noqa: S106 - secrets of servers that live for a test

import asyncio
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from router.bus.client.connection import Bus
from router.bus.client.faults import BusTimeoutError, NoRespondersError
from router.bus.client.options import BusOptions
from router.errors import BusError, InvalidInput
from tests.bus.conftest import Heard, only_the_first_connects
from tests.servers import NatsProcess, free_port, missing


async def test_a_pod_boots_without_a_server(servers: None, tmp_path: Path) -> None:
    """start() returns, nothing is connected, a subscription can be made; when the server comes it all works."""
    server = NatsProcess(tmp_path, port=free_port())
    bus = Bus(BusOptions((server.url,)))
    heard = Heard()
    await bus.start()
    assert not bus.connected
    assert not await bus.wait_connected(0.05)
    await bus.subscribe("boot.here", lambda _s, _r, data, _h: heard(data))
    with pytest.raises(BusError):
        bus.publish("boot.here", b"too early")
    await asyncio.to_thread(server.start)
    try:
        assert await bus.wait_connected(10)
        bus.publish("boot.here", b"hello")
        assert await heard.until(1) == [b"hello"]
    finally:
        await bus.close()
        await asyncio.to_thread(server.stop)


async def test_the_absent_server_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Many attempts, one line."""
    failed = Heard()
    bus = Bus(BusOptions((f"nats://127.0.0.1:{free_port()}",)))
    bus.on_error.append(failed)
    await bus.start()
    await failed.until(4)
    await bus.close()
    assert len([record for record in caplog.records if "cannot reach NATS" in record.message]) == 1


async def test_subscriptions_outlive_the_server(own_server: NatsProcess, own_bus: Bus) -> None:
    """After kill -9 and a restart the old subscription hears again, and what was queued meanwhile is sent."""
    heard, gone, back = Heard(), Heard(), Heard()
    own_bus.on_disconnect.append(gone)
    own_bus.on_connect.append(back)
    await own_bus.subscribe("outlive", lambda _s, _r, data, _h: heard(data))
    own_server.kill()
    await gone.until(1)
    assert not own_bus.connected
    own_bus.publish("outlive", b"queued while away")
    await asyncio.to_thread(own_server.start)
    await back.until(1)
    own_bus.publish("outlive", b"after")
    assert await heard.until(2) == [b"queued while away", b"after"]


async def test_a_frozen_server_is_noticed(own_server: NatsProcess) -> None:
    """A server that keeps the connection and answers nothing is left within three pings; when it is back, all works."""
    bus = Bus(BusOptions((own_server.url,), ping_interval_s=0.1, connect_timeout_s=0.3))
    gone, back, heard = Heard(), Heard(), Heard()
    bus.on_disconnect.append(gone)
    await bus.start()
    assert await bus.wait_connected(10)
    await bus.subscribe("frozen", lambda _s, _r, data, _h: heard(data))
    bus.on_connect.append(back)
    own_server.freeze()
    await gone.until(1, timeout_s=2)
    assert not bus.connected
    own_server.thaw()
    await back.until(1)
    bus.publish("frozen", b"x")
    assert await heard.until(1) == [b"x"]
    await bus.close()


async def test_over_tls(servers: None, tmp_path: Path) -> None:
    """With the CA of the server there is a connection, without it there is none."""
    openssl = shutil.which("openssl")
    if openssl is None:
        missing("openssl", "install it with the system's packages")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [
        str(openssl),
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        *names,
    ]
    await asyncio.to_thread(subprocess.run, make, check=True, capture_output=True)
    server = NatsProcess(tmp_path / "data", extra=f"tls {{ cert_file: '{cert}', key_file: '{key}' }}")
    await asyncio.to_thread(server.start)
    good, bad = Bus(BusOptions((server.url,), tls_ca=str(cert))), Bus(BusOptions((server.url.replace("nats", "tls"),)))
    await only_the_first_connects(server, good, bad)


async def test_a_failing_listener_stops_nothing(own_server: NatsProcess, own_bus: Bus) -> None:
    """A bug in one who listens for connections: the others are told, and the bus goes on reconnecting."""
    back = Heard()

    def broken() -> None:
        raise KeyError("x")

    own_bus.on_disconnect.append(broken)
    own_bus.on_connect.append(broken)
    own_bus.on_connect.append(back)
    for round_ in range(2):
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        await back.until(round_ + 1)


async def test_a_client_that_gave_up_is_replaced(own_bus: Bus) -> None:
    """Whatever closes nats-py's client, the bus makes another one and subscribes everything again."""
    heard, back = Heard(), Heard()
    await own_bus.subscribe("replaced", lambda _s, _r, data, _h: heard(data))
    own_bus.on_connect.append(back)
    first = own_bus._client
    assert first is not None
    await first.close()
    await back.until(1)
    own_bus.publish("replaced", b"x")
    assert await heard.until(1) == [b"x"]
    assert own_bus._client is not first


async def test_closing_a_subscription_hands_over_what_was_sent_before(bus: Bus, client: Bus, name: str) -> None:
    """close() returns after the last message that the server had sent; nothing comes afterwards."""
    heard = Heard()
    subscription = await bus.subscribe(name, lambda _s, _r, data, _h: heard(data))
    for index in range(1000):
        client.publish(name, b"%d" % index)
    await client.flush()
    await subscription.close()
    assert len(heard.items) == 1000
    client.publish(name, b"late")
    await client.flush()
    await bus.flush()
    assert len(heard.items) == 1000


async def test_a_request_without_a_responder_says_so(bus: Bus, name: str) -> None:
    """NoRespondersError at once, not a timeout."""
    with pytest.raises(NoRespondersError):
        await bus.request(name, b"")


async def test_a_request_without_an_answer_times_out(bus: Bus, name: str) -> None:
    """BusTimeoutError after the time given."""
    await bus.subscribe(name, lambda *_: None)
    with pytest.raises(BusTimeoutError):
        await bus.request(name, b"", timeout_s=0.05)


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b", "a\tb", "x" * 1025])
async def test_a_subject_cannot_add_a_command(bus: Bus, subject: str) -> None:
    """White space and line ends in a subject are refused before anything is queued."""
    with pytest.raises(BusError):
        bus.publish(subject, b"")


async def test_too_large_is_refused_here(bus: Bus, name: str) -> None:
    """Above the server's max_payload nothing is sent, so the connection is not lost over it."""
    with pytest.raises(BusError, match="more than the NATS server takes"):
        bus.publish(name, bytes(bus.max_payload + 1))
    assert await bus.rtt() < 2


async def test_what_waits_is_bounded(own_server: NatsProcess) -> None:
    """While the server is away the queue grows to its bound, then publishes are refused."""
    bus = Bus(BusOptions((own_server.url,), max_unsent_bytes=1000))
    gone = Heard()
    bus.on_disconnect.append(gone)
    await bus.start()
    assert await bus.wait_connected(10)
    own_server.kill()
    await gone.until(1)
    while bus.unsent <= 1000:
        bus.publish("away", bytes(100))
    with pytest.raises(BusError, match="too much"):
        bus.publish("away", b"")
    await bus.close()


@pytest.mark.parametrize(
    ("right", "wrong", "config"),
    [
        (
            BusOptions((), user="router", password="s3cret"),
            BusOptions((), user="router", password="other"),
            "authorization { user: router, password: s3cret }",
        ),
        (BusOptions((), token="t0ken"), BusOptions((), token="other"), "authorization { token: t0ken }"),
    ],
    ids=["user", "token"],
)
async def test_logging_in(servers: None, tmp_path: Path, right: BusOptions, wrong: BusOptions, config: str) -> None:
    """With the right secret there is a connection, with a wrong one there is none, and the bus goes on trying."""
    server = await asyncio.to_thread(NatsProcess(tmp_path, extra=config).start)
    good, bad = (Bus(msgspec.structs.replace(options, urls=(server.url,))) for options in (right, wrong))
    await only_the_first_connects(server, good, bad)


def test_bad_options_are_told_all_at_once() -> None:
    """Every mistake is named, none hides another."""
    with pytest.raises(InvalidInput) as refused:
        Bus(BusOptions(("http://x", "nats://y"), user="u", token="t", tls_ca="/nonexistent/ca.pem"))
    assert [problem.path for problem in refused.value.problems] == ["urls", "user", "user", "tls"]


async def test_a_cancellation_that_is_lost_holds_no_close_up() -> None:
    """nats-py may swallow one that comes with a refused connection: the next one ends it."""
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost == 2:
                    raise
                lost += 1

    bus = Bus(BusOptions(("nats://127.0.0.1:1",)))
    bus._upkeep._task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await bus.close()
    assert lost == 2
