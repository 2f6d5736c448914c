"""Publishes into a real JetStream."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable

import pytest

from router.bus.client.connection import Bus
from router.bus.publishing import puback
from router.bus.publishing.puback import Verdict
from router.bus.publishing.publisher import StreamPublisher
from router.bus.streams.registry import Streams
from router.bus.streams.specs import StreamSpec
from router.ports.bus import Publication, Published, Publisher
from router.telemetry import Event
from tests.bus.conftest import Heard
from tests.bus.jetstream import create, delete
from tests.servers import NatsProcess


@pytest.fixture
async def streams(bus: Bus, name: str) -> Streams:
    """A stream over `<name>.in`."""
    streams = Streams(bus, [StreamSpec(name, (f"{name}.in",), 3600, 3600)])
    await streams.ensure()
    return streams


@pytest.fixture
async def publisher(bus: Bus, streams: Streams) -> AsyncIterator[StreamPublisher]:
    """Started, with a small window."""
    publisher = StreamPublisher(bus, streams, window=16, ack_timeout_s=0.5, give_up_s=2)
    await publisher.start()
    yield publisher
    await publisher.stop()


async def stored(bus: Bus, stream: str) -> int:
    """How many messages a stream holds."""
    count: int = json.loads((await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"")).data)["state"]["messages"]
    return count


async def test_all_are_stored_through_a_small_window(bus: Bus, publisher: Publisher, name: str) -> None:
    """A thousand publishes through a window of 16: each done(STORED) once, all in the stream."""
    done = Heard()
    for index in range(1000):
        publisher.publish(Publication(f"{name}.in", b"x", f"id-{index}", {"trace_id": "t"}), done)
    assert done.items == []
    assert await done.until(1000) == [Published.STORED] * 1000
    assert await stored(bus, name) == 1000


async def test_a_repeated_id_is_stored_once_and_counted(bus: Bus, publisher: StreamPublisher, name: str) -> None:
    """A duplicate is an outcome of its own, for the caller and in the counters, and not a second message."""
    done = Heard()
    for _ in range(3):
        publisher.publish(Publication(f"{name}.in", b"x", "same"), done)
    assert await done.until(3) == [Published.STORED, Published.DUPLICATE, Published.DUPLICATE]
    assert (publisher.stored, publisher.duplicates) == (1, 2)
    assert await stored(bus, name) == 1


async def test_headers_and_id_arrive(bus: Bus, publisher: Publisher, name: str) -> None:
    """A subscriber sees the payload, the headers and Nats-Msg-Id."""
    heard, done = Heard(), Heard()
    await bus.subscribe(f"{name}.in", lambda _s, _r, data, raw: heard(data, raw))
    publisher.publish(Publication(f"{name}.in", b"body", "m1", {"tenant_id": "acme"}), done)
    await done.until(1)
    assert await heard.until(1) == [(b"body", b"NATS/1.0\r\nNats-Msg-Id: m1\r\ntenant_id: acme\r\n\r\n")]


def said_core(log: pytest.LogCaptureFixture) -> list[str]:
    """The lines that say that something went core."""
    return [r.getMessage() for r in log.records if getattr(r, "event", None) is Event.PUBLISHED_CORE]


async def test_an_inbox_is_not_looked_up(
    bus: Bus, client: Bus, streams: Streams, caplog: pytest.LogCaptureFixture
) -> None:
    """Every caller has one of its own: it goes core at once, and no missing stream is told of."""
    heard, done = Heard(), Heard()
    inbox = client.new_inbox()
    await client.subscribe(inbox, lambda _s, _r, data, _h: heard(data))
    publisher = StreamPublisher(bus, streams)
    await publisher.start()
    publisher.publish(Publication(inbox, b"final", "i", core_is_enough=True), done)
    assert publisher.published_core == 1
    assert await heard.until(1) == [b"final"]
    assert await done.until(1) == [Published.STORED]
    assert said_core(caplog) == []
    await publisher.stop()


async def test_an_uncovered_subject_goes_core_once(
    bus: Bus, client: Bus, streams: Streams, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No stream: a core subscriber gets it once, it counts as handed over, the log says so once per subject."""
    heard, done = Heard(), Heard()
    await client.subscribe(f"{name}.core", lambda _s, reply, data, _h: heard(data, reply))
    publisher = StreamPublisher(bus, streams)
    await publisher.start()
    for index in range(3):
        publisher.publish(Publication(f"{name}.core", b"%d" % index, f"i{index}"), done)
    assert await done.until(3) == [Published.STORED] * 3
    assert await heard.until(3) == [(b"0", b""), (b"1", b""), (b"2", b"")]
    assert said_core(caplog) == [
        f"no stream covers {name}.core; published with core NATS, without an ack: the deadline is the guarantee"
    ]
    assert publisher.published_core == 3
    await publisher.stop()


async def test_a_foreign_stream_over_the_subject_is_found(bus: Bus, publisher: StreamPublisher, name: str) -> None:
    """A subject outside the specification that somebody's stream covers is published with an ack."""
    await create(bus, f"{name}-their", [f"{name}.theirs"])
    done = Heard()
    publisher.publish(Publication(f"{name}.theirs", b"x", "i"), done)
    assert await done.until(1) == [Published.STORED]
    assert publisher.published_core == 0
    assert await stored(bus, f"{name}-their") == 1


async def test_a_deleted_stream_is_asked_for_and_then_served(bus: Bus, streams: Streams, name: str) -> None:
    """A specified subject without a stream is never published core: it waits for the stream to be created again."""
    missing, done = Heard(), Heard()
    publisher = StreamPublisher(bus, streams, on_stream_missing=lambda: missing(1))
    await publisher.start()
    await delete(bus, f"STREAM.DELETE.{name}")
    publisher.publish(Publication(f"{name}.in", b"x", "i"), done)
    await missing.until(1)
    await streams.ensure()
    assert await done.until(1) == [Published.STORED]
    assert await stored(bus, name) == 1
    await publisher.stop()


async def test_it_gives_up_in_time(bus: Bus, streams: Streams, name: str) -> None:
    """Without a stream for longer than `give_up_s`: done(FAILED), once."""
    done = Heard()
    publisher = StreamPublisher(bus, streams, give_up_s=0.3)
    await publisher.start()
    await delete(bus, f"STREAM.DELETE.{name}")
    publisher.publish(Publication(f"{name}.in", b"x", "i"), done)
    assert await done.until(1) == [Published.REFUSED]
    assert publisher.failed == 1
    assert publisher.pending == 0
    await publisher.stop()


async def test_a_full_stream_is_named_once(bus: Bus, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Everything is tried until it is given up; one line says what the server said, not one a message."""
    streams = Streams(bus, [StreamSpec(name, (f"{name}.in",), 3600, 3600)])
    full = {"name": name, "subjects": [f"{name}.in"], "max_msgs": 1, "discard": "new", "duplicate_window": 10**9}
    await bus.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(full).encode())
    publisher = StreamPublisher(bus, streams, ack_timeout_s=0.2, give_up_s=0.5)
    await publisher.start()
    done = Heard()
    for index in range(20):
        publisher.publish(Publication(f"{name}.in", b"x", f"id-{index}"), done)
    outcomes = await done.until(20)
    assert (outcomes.count(Published.STORED), outcomes.count(Published.REFUSED)) == (1, 19)
    failed = [r.getMessage() for r in caplog.records if "failed after" in r.getMessage()]
    assert len(failed) == 1
    assert "maximum messages exceeded" in failed[0]
    await publisher.stop()


async def test_what_the_stream_refuses_fails_at_once(bus: Bus, streams: Streams, name: str) -> None:
    """A message above the stream's own bound is done(FAILED) without retries."""
    await create(bus, f"{name}-small", [f"{name}.small"], max_msg_size=10)
    publisher = StreamPublisher(bus, streams)
    await publisher.start()
    done = Heard()
    publisher.publish(Publication(f"{name}.small", bytes(100), "i"), done)
    assert await done.until(1) == [Published.REFUSED]
    assert publisher.resent == 0
    await publisher.stop()


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b'{"stream":"S","seq":1}', Verdict.STORED),
        (b'{"stream":"S","seq":1,"duplicate":true}', Verdict.DUPLICATE),
        (b'{"error":{"code":503,"err_code":10008,"description":"no leader"}}', Verdict.RETRY),
        (b'{"error":{"code":400,"err_code":10054,"description":"too large"}}', Verdict.UNFIT),
        (b'{"error":{"code":400,"err_code":10109,"description":"sealed"}}', Verdict.REFUSED),
        (b'{"error":{"code":400,"err_code":10002,"description":"account full"}}', Verdict.RETRY),
        (b"thanks", Verdict.FOREIGN),
        (b'{"ok":true}', Verdict.FOREIGN),
        (b"[]", Verdict.FOREIGN),
    ],
)
def test_what_an_answer_means(answer: bytes, verdict: Verdict) -> None:
    """Stored, a duplicate, to be sent again, refused, or not JetStream's at all."""
    assert puback.read(answer)[0] is verdict


async def test_a_worker_that_answers_is_not_taken_for_the_stream(
    bus: Bus, client: Bus, publisher: StreamPublisher, name: str
) -> None:
    """A core subscriber that replies `ok` to work items does not end the publish: JetStream's ack does."""
    done = Heard()
    await client.subscribe(f"{name}.in", lambda _s, reply, _d, _h: client.publish(reply.decode(), b"ok"))
    for index in range(20):
        publisher.publish(Publication(f"{name}.in", b"x", f"i{index}"), done)
    assert await done.until(20) == [Published.STORED] * 20
    assert await stored(bus, name) == 20
    assert publisher.resent == 0


@pytest.mark.parametrize(
    "publication",
    [
        Publication("a b", b"", "i"),
        Publication("a", b"", "i", {"bad name": "x"}),
        Publication("a", bytes(5 << 20), "i"),
    ],
    ids=["subject", "header", "size"],
)
async def test_what_cannot_be_sent_is_refused(publisher: StreamPublisher, publication: Publication) -> None:
    """done(FAILED), later, and the connection is not risked."""
    done = Heard()
    publisher.publish(publication, done)
    assert done.items == []
    assert await done.until(1) == [Published.UNSENT]


async def test_the_queue_is_bounded(own_server: NatsProcess, own_bus: Bus) -> None:
    """While NATS is away the window and the queue fill up, the next is refused; stop() ends all others with FAILED."""
    streams = Streams(own_bus, [StreamSpec("S", ("s",), 3600, 60)])
    publisher = StreamPublisher(own_bus, streams, max_waiting=5)
    gone, done = Heard(), Heard()
    own_bus.on_disconnect.append(gone)
    await publisher.start()
    own_server.kill()
    await gone.until(1)
    for index in range(6):
        publisher.publish(Publication("s", b"", f"{index}"), done)
    assert await done.until(1) == [Published.UNSENT]
    assert publisher.pending == 5
    await publisher.stop(timeout_s=0.01)
    assert done.items == [Published.UNSENT] + [Published.UNANSWERED] * 5


async def test_the_queue_is_bounded_in_bytes(own_server: NatsProcess, own_bus: Bus) -> None:
    """While NATS is away few large publishes fill it as many small ones do."""
    streams = Streams(own_bus, [StreamSpec("S", ("s",), 3600, 60)])
    publisher = StreamPublisher(own_bus, streams, max_waiting_bytes=1_000)
    gone, done = Heard(), Heard()
    own_bus.on_disconnect.append(gone)
    await publisher.start()
    own_server.kill()
    await gone.until(1)
    for index in range(3):
        publisher.publish(Publication("s", b"x" * 400, f"{index}"), done)
    assert await done.until(1) == [Published.UNSENT]
    assert publisher.pending == 2
    await publisher.stop(timeout_s=0.01)


async def test_no_more_than_the_window_is_on_its_way(
    bus: Bus, publisher: StreamPublisher, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand at once: the next one leaves when one has come back."""
    on_the_way, maximum, done = 0, 0, Heard()
    send = bus.send

    def sending(command: bytes) -> None:
        nonlocal on_the_way, maximum
        if f"PUB {name}.in".encode() in command:
            on_the_way += 1
            maximum = max(maximum, on_the_way)
        send(command)

    def ended(outcome: Published) -> None:
        nonlocal on_the_way
        on_the_way -= 1
        done(outcome)

    monkeypatch.setattr(bus, "send", sending)
    for index in range(1000):
        publisher.publish(Publication(f"{name}.in", b"x", f"id-{index}"), ended)
    assert await done.until(1000) == [Published.STORED] * 1000
    assert maximum == 16


async def test_a_bug_of_one_caller_costs_no_other(
    bus: Bus, publisher: StreamPublisher, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its fault is logged; the acks of the others arrive, and nothing is left to wait for."""
    done = Heard()

    def bug(_outcome: Published) -> None:
        raise ValueError("a bug of the caller")

    callers: tuple[Callable[[Published], None], ...] = (done, bug, done)
    for index, told in enumerate(callers):
        publisher.publish(Publication(f"{name}.in", b"x", f"id-{index}"), told)
    assert await done.until(2) == [Published.STORED] * 2
    assert await publisher.flush(5)
    assert "a bug of the caller" in caplog.text
    assert await stored(bus, name) == 3


async def test_nothing_is_lost_or_doubled_over_kills_of_the_server(own_server: NatsProcess, own_bus: Bus) -> None:
    """kill -9 three times while publishing: every message is acked and in the stream exactly once."""
    streams = Streams(own_bus, [StreamSpec("S", ("s",), 3600, 3600)])
    await streams.ensure()
    publisher = StreamPublisher(own_bus, streams, window=64, ack_timeout_s=0.5, give_up_s=30)
    done, back = Heard(), Heard()
    own_bus.on_connect.append(back)
    await publisher.start()
    sent = 0
    for round_ in range(3):
        for _ in range(300):
            publisher.publish(Publication("s", b"x", f"m{sent}"), done)
            sent += 1
        await done.until(sent - 250)
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        await back.until(round_ + 1)
    assert all(await done.until(sent, 30))
    assert await stored(own_bus, "S") == sent
    await publisher.stop()


class Troubles:
    """`ports.bus.StreamTrouble` that keeps what it hears."""

    def __init__(self) -> None:
        self.refusals, self.recoveries = Heard(), Heard()

    def refusing(self, stream: str, *, words: str) -> None:
        """Kept."""
        self.refusals(stream, words)

    def stored(self, stream: str) -> None:
        """Kept."""
        self.recoveries(stream)


async def full(bus: Bus, name: str) -> Streams:
    """A stream over `<name>.in` that holds one message and refuses the next, and one over `<name>.other`."""
    config = {"name": name, "subjects": [f"{name}.in"], "max_msgs": 1, "discard": "new"}
    await bus.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode())
    await create(bus, f"{name}-other", [f"{name}.other"])
    await bus.request(f"{name}.in", b"in the way")
    return Streams(bus, [StreamSpec(name, (f"{name}.in",), 3600), StreamSpec(f"{name}-other", (f"{name}.other",), 60)])


async def emptied(bus: Bus, name: str) -> None:
    """Room again."""
    config = {"name": name, "subjects": [f"{name}.in"], "discard": "new"}
    await bus.request(f"$JS.API.STREAM.UPDATE.{name}", json.dumps(config).encode())


async def test_a_refusal_comes_with_the_words_of_the_server(bus: Bus, name: str) -> None:
    """The stream is full until the end: REFUSED, since no try was left without an answer."""
    publisher = StreamPublisher(bus, await full(bus, name), give_up_s=0.5)
    await publisher.start()
    done, words = Heard(), Heard()
    publisher.publish(Publication(f"{name}.in", b"x", "i", failed=words), done)
    assert await done.until(1) == [Published.REFUSED]
    assert words.items == ["maximum messages exceeded"]
    await publisher.stop()


async def test_a_full_stream_holds_up_no_other(bus: Bus, name: str) -> None:
    """More refused messages than the window has places: those of another stream are stored meanwhile."""
    publisher = StreamPublisher(bus, await full(bus, name), window=2, give_up_s=10)
    await publisher.start()
    refused, done = Heard(), Heard()
    for index in range(20):
        publisher.publish(Publication(f"{name}.in", b"x", f"i{index}"), refused)
    for index in range(20):
        publisher.publish(Publication(f"{name}.other", b"x", f"o{index}"), done)
    assert await done.until(20, 5) == [Published.STORED] * 20
    assert refused.items == []
    await emptied(bus, name)
    assert await refused.until(20) == [Published.STORED] * 20
    await publisher.stop()


async def test_a_stream_that_stores_nothing_for_a_second_is_reported_until_it_does(bus: Bus, name: str) -> None:
    """By its name, with the server's words; the other stream is not."""
    publisher = StreamPublisher(bus, await full(bus, name))
    publisher.trouble.sink = troubles = Troubles()
    await publisher.start()
    done = Heard()
    loop = asyncio.get_running_loop()
    began = loop.time()
    publisher.publish(Publication(f"{name}.in", b"x", "i"), done)
    publisher.publish(Publication(f"{name}.other", b"x", "o"), done)
    assert set(await troubles.refusals.until(2)) == {(name, "maximum messages exceeded")}
    assert loop.time() - began >= 1.0
    assert troubles.recoveries.items == []
    await emptied(bus, name)
    assert await troubles.recoveries.until(1) == [name]
    await done.until(2)
    await publisher.stop()


async def test_a_stream_outside_the_specification_is_reported_by_its_subject(
    bus: Bus, streams: Streams, name: str
) -> None:
    """It is somebody else's, and known by nothing else."""
    await create(bus, f"{name}-their", [f"{name}.theirs"], max_msgs=1, discard="new")
    await bus.request(f"{name}.theirs", b"in the way")
    publisher = StreamPublisher(bus, streams)
    publisher.trouble.sink = troubles = Troubles()
    await publisher.start()
    publisher.publish(Publication(f"{name}.theirs", b"x", "i"), Heard())
    assert (await troubles.refusals.until(1))[0] == (f"{name}.theirs", "maximum messages exceeded")
    await publisher.stop(0.01)


@pytest.mark.parametrize("give_up_s", [0.5, 2.5], ids=["before the second try", "after it"])
async def test_what_is_not_answered_is_no_refusal(bus: Bus, name: str, give_up_s: float) -> None:
    """A stream with no_ack stores and says nothing: UNANSWERED, however often it was tried."""
    await create(bus, name, [f"{name}.in"], no_ack=True)
    publisher = StreamPublisher(bus, Streams(bus, [StreamSpec(name, (f"{name}.in",), 3600)]), give_up_s=give_up_s)
    await publisher.start()
    done, words = Heard(), Heard()
    publisher.publish(Publication(f"{name}.in", b"x", "i", failed=words), done)
    assert await done.until(1) == [Published.UNANSWERED]
    assert words.items == ["no ack"]
    assert await stored(bus, name) >= 1
    await publisher.stop()


async def test_a_refusal_after_silence_leaves_it_open(bus: Bus, name: str) -> None:
    """The first try had no answer, the next is refused: the first may be stored."""
    await create(bus, name, [f"{name}.in"], no_ack=True)
    streams = Streams(bus, [StreamSpec(name, (f"{name}.in",), 3600)])
    publisher = StreamPublisher(bus, streams, ack_timeout_s=0.2, give_up_s=1)
    await publisher.start()
    done = Heard()
    publisher.publish(Publication(f"{name}.in", b"x", "i"), done)
    await delete(bus, f"STREAM.DELETE.{name}")
    assert await done.until(1) == [Published.UNANSWERED]
    await publisher.stop()


async def test_what_never_left_says_so(own_server: NatsProcess, own_bus: Bus) -> None:
    """NATS goes away before the publish: UNSENT, at the publication's own time."""
    publisher = StreamPublisher(own_bus, Streams(own_bus, [StreamSpec("S", ("s",), 3600, 60)]))
    gone, done, words = Heard(), Heard(), Heard()
    own_bus.on_disconnect.append(gone)
    await publisher.start()
    await asyncio.to_thread(own_server.kill)
    await gone.until(1)
    publisher.publish(Publication("s", b"", "i", within_s=0.3, failed=words), done)
    assert await done.until(1, 3) == [Published.UNSENT]
    assert words.items == ["never sent"]
    await publisher.stop(0.01)


async def test_what_was_under_way_when_nats_died_is_open(own_server: NatsProcess, own_bus: Bus) -> None:
    """Its ack may be lost with the connection: UNANSWERED; and an outage of NATS is no trouble of a stream."""
    await create(own_bus, "S", ["s"], no_ack=True)
    publisher = StreamPublisher(own_bus, Streams(own_bus, [StreamSpec("S", ("s",), 3600, 60)]))
    publisher.trouble.sink = troubles = Troubles()
    done = Heard()
    await publisher.start()
    publisher.publish(Publication("s", b"", "i", within_s=2), done)
    await own_bus.flush()
    gone = Heard()
    own_bus.on_disconnect.append(gone)
    await asyncio.to_thread(own_server.kill)
    await gone.until(1)
    assert await done.until(1, 5) == [Published.UNANSWERED]
    assert troubles.refusals.items == []
    await publisher.stop(0.01)


async def with_ttls(bus: Bus, name: str) -> Streams:
    """A stream that the fleet creates for messages that may expire one by one."""
    streams = Streams(bus, [StreamSpec(name, (f"{name}.in",), 3600, 3600, message_ttls=True)])
    await streams.ensure()
    if bus.server_version < (2, 11, 0):
        assert not streams.allows_ttl(f"{name}.in")
        pytest.skip("NATS before 2.11 has no message TTLs")
    return streams


async def headers_of(bus: Bus, stream: str, sequence: int) -> str:
    """The header block of a stored message; empty: it has none."""
    answer = await bus.request(f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps({"seq": sequence}).encode())
    return base64.b64decode(json.loads(answer.data)["message"].get("hdrs", "")).decode()


async def test_a_message_expires_where_its_stream_allows_it(bus: Bus, name: str) -> None:
    """By its own `Nats-TTL`, long before the stream's max age."""
    publisher = StreamPublisher(bus, await with_ttls(bus, name))
    await publisher.start()
    done = Heard()
    publisher.publish(Publication(f"{name}.in", b"x", "short", ttl_s=1), done)
    publisher.publish(Publication(f"{name}.in", b"x", "long"), done)
    assert await done.until(2) == [Published.STORED] * 2
    assert "Nats-TTL: 1s" in await headers_of(bus, name, 1)
    assert "Nats-TTL" not in await headers_of(bus, name, 2)
    async with asyncio.timeout(15):
        while await stored(bus, name) > 1:
            await bus.rtt()
    await publisher.stop()


async def test_an_existing_stream_without_ttls_gets_none(bus: Bus, streams: Streams, name: str) -> None:
    """It is left as it is, and that is no difference; once an operator allows them, the next check finds out."""
    same = Streams(bus, [StreamSpec(name, (f"{name}.in",), 3600, 3600, message_ttls=True)])
    assert (await same.ensure()).differences == ()
    publisher = StreamPublisher(bus, same)
    await publisher.start()
    done = Heard()
    publisher.publish(Publication(f"{name}.in", b"x", "a", ttl_s=60), done)
    await done.until(1)
    assert "Nats-TTL" not in await headers_of(bus, name, 1)
    if bus.server_version >= (2, 11, 0):
        config = json.loads((await bus.request(f"$JS.API.STREAM.INFO.{name}", b"")).data)["config"]
        update = json.dumps(config | {"allow_msg_ttl": True}).encode()
        await bus.request(f"$JS.API.STREAM.UPDATE.{name}", update)
        await same.ensure()
        publisher.publish(Publication(f"{name}.in", b"x", "b", ttl_s=60), done)
        await done.until(2)
        assert "Nats-TTL: 60s" in await headers_of(bus, name, 2)
    await publisher.stop()


async def test_a_publish_refused_for_its_ttl_goes_again_without(bus: Bus, name: str) -> None:
    """Somebody has replaced the stream since the last check: all are stored, and the stream is read again."""
    streams = await with_ttls(bus, name)
    await delete(bus, f"STREAM.DELETE.{name}")
    await create(bus, name, [f"{name}.in"])
    missing, done = Heard(), Heard()
    publisher = StreamPublisher(bus, streams, on_stream_missing=lambda: missing(1))
    publisher.trouble.sink = troubles = Troubles()
    await publisher.start()
    for index in range(5):
        publisher.publish(Publication(f"{name}.in", b"x", f"i{index}", ttl_s=60), done)
    assert await done.until(5, 5) == [Published.STORED] * 5
    assert missing.items
    assert not streams.allows_ttl(f"{name}.in")
    assert "Nats-TTL" not in await headers_of(bus, name, 1)
    assert troubles.refusals.items == []
    publisher.publish(Publication(f"{name}.in", b"x", "next", ttl_s=60), done)
    await done.until(6)
    assert publisher.resent == 5
    await publisher.stop()
