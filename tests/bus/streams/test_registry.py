"""Streams and consumers on a real JetStream."""

import asyncio
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from router.bus.streams import specs
from router.bus.streams.keeper import StreamKeeper
from router.bus.streams.registry import Streams
from router.bus.streams.specs import ConsumerSpec, StreamSpec
from router.errors import StartupRefused
from tests.bus.conftest import Heard
from tests.bus.jetstream import create, delete
from tests.servers import NatsProcess


def fleet(bus: Bus, name: str) -> Streams:
    """One stream and one consumer of a test's own."""
    stream = StreamSpec(name.upper(), (f"{name}.a", f"{name}.b.*"), max_age_s=3600, dedup_s=600)
    return Streams(bus, [stream], [ConsumerSpec(stream=name.upper(), name="workers")])


async def test_missing_ones_are_created_as_specified(bus: Bus, name: str) -> None:
    """The first look creates, the second finds nothing to do and no difference."""
    streams = fleet(bus, name)
    first = await streams.ensure()
    assert first.created == (name.upper(), f"{name.upper()}/workers")
    assert first.differences == ()
    assert await streams.ensure() == specs.Ensured()


async def test_what_was_deleted_is_created_again(bus: Bus, name: str) -> None:
    """A deleted consumer, and a deleted stream with all on it."""
    streams = fleet(bus, name)
    await streams.ensure()
    await delete(bus, f"CONSUMER.DELETE.{name.upper()}.workers")
    assert (await streams.ensure()).created == (f"{name.upper()}/workers",)
    await delete(bus, f"STREAM.DELETE.{name.upper()}")
    assert (await streams.ensure_consumer(streams.consumers[0])).created == (name.upper(), f"{name.upper()}/workers")


async def test_many_pods_may_create_at_once(bus: Bus, client: Bus, name: str) -> None:
    """Eight checks at once find the stream deleted: it is created, and none reports a fault or a difference."""
    await fleet(bus, name).ensure()
    for _ in range(3):
        await delete(bus, f"STREAM.DELETE.{name.upper()}")
        found = await asyncio.gather(*(fleet(one, name).ensure() for one in (bus, client) * 4))
        assert any(name.upper() in one.created for one in found)
        assert [(one.differences, one.missing) for one in found] == [((), ())] * 8


async def test_differences_are_reported_and_nothing_is_altered(bus: Bus, name: str) -> None:
    """Another age and other subjects are named field by field, again at each look: they stay as they are."""
    await create(bus, name.upper(), [f"{name}.a"], max_age=60_000_000_000, duplicate_window=60_000_000_000)
    streams = fleet(bus, name)
    await streams.ensure()
    ensured = await streams.ensure()
    assert [(one.field, one.actual, one.specified) for one in ensured.differences] == [
        ("subjects", f"['{name}.a']", f"['{name}.a', '{name}.b.*']"),
        ("max_age_s", "60.0", "3600.0"),
        ("dedup_s", "60.0", "600.0"),
    ]
    assert ensured.created == ()


async def test_a_different_consumer_is_reported(bus: Bus, name: str) -> None:
    """An ack wait that somebody changed is a difference."""
    streams = fleet(bus, name)
    await streams.ensure()
    other = Streams(bus, streams.specs, [ConsumerSpec(stream=name.upper(), name="workers", ack_wait_s=5)])
    assert [str(one) for one in (await other.ensure()).differences] == [
        "consumer workers: ack_wait_s is 30.0, specified is 5.0"
    ]


async def test_subjects_in_another_stream_are_a_difference_not_a_fault(bus: Bus, name: str) -> None:
    """A stream that cannot be created is missing, with the one in its way as the reason; its consumer is left out."""
    await create(bus, f"{name}-other", [f"{name}.>"])
    streams = fleet(bus, name)
    ensured = await streams.ensure()
    assert [(one.what, one.field, one.actual) for one in ensured.differences] == [
        (f"stream {name.upper()}", "creation", ""),
    ]
    assert f"{name}-other" in ensured.differences[0].specified
    (missing,) = ensured.missing
    assert missing.stream == name.upper()
    assert "subjects overlap with an existing stream" in missing.reason
    assert f"_NAME={name}-other" in missing.reason


async def test_what_the_server_cannot_hold_does_not_stop_the_rest(bus: Bus, name: str) -> None:
    """More replicas than there are servers: reported, and the next stream is created."""
    wide = StreamSpec(f"{name}-wide", (f"{name}.w",), 60, replicas=3)
    streams = Streams(bus, [wide, StreamSpec(f"{name}-ok", (f"{name}.ok",), 60)])
    ensured = await streams.ensure()
    assert [one.what for one in ensured.differences if not one.actual] == [f"stream {name}-wide"]
    assert ensured.created == (f"{name}-ok",)


async def test_two_pods_may_look_at_once(bus: Bus, client: Bus, name: str) -> None:
    """Both find them missing and create them: no fault, and no difference afterwards."""
    one, other = fleet(bus, name), fleet(client, name)
    await asyncio.gather(one.ensure(), other.ensure())
    assert await one.ensure() == specs.Ensured()


async def test_without_jetstream_the_keeper_says_so(
    servers: None, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server without JetStream: no check is complete, each is reported as such, and the log has one line."""
    server = NatsProcess(tmp_path, extra="jetstream: disabled")
    await asyncio.to_thread(server.start)
    bus = Bus(BusOptions((server.url,)))
    looks, faults = Heard(), Heard()
    keeper = StreamKeeper(
        bus,
        fleet(bus, name),
        retry_s=0.05,
        on_poll=lambda _e, covered: looks(covered),
        on_fault=lambda _reason, off: faults(off),
    )
    await bus.start()
    await bus.wait_connected(10)
    await keeper.start()
    assert all(await faults.until(3))
    assert looks.items == []
    assert len([r for r in caplog.records if "cannot check the streams" in r.message]) == 1
    await keeper.stop()
    await bus.close()
    await asyncio.to_thread(server.stop)


async def test_streams_over_a_subject_are_found(bus: Bus, name: str) -> None:
    """By the literal subject, by a wildcard of the stream, and by a wildcard that is asked for."""
    await create(bus, f"{name}-lit", [f"{name}.lit"])
    await create(bus, f"{name}-wild", [f"{name}.w.>"])
    streams = fleet(bus, name)
    assert await streams.covering(f"{name}.lit") == [f"{name}-lit"]
    assert await streams.covering(f"{name}.w.x.y") == [f"{name}-wild"]
    assert await streams.covering(f"{name}.>") == [f"{name}-lit", f"{name}-wild"]
    assert await streams.covering(f"{name}.none") == []


async def test_a_stream_that_answers_nobody_is_fine(bus: Bus, name: str) -> None:
    """no_ack streams over a request subject do not count."""
    await create(bus, f"{name}-quiet", [f"{name}.q"], no_ack=True)
    assert await fleet(bus, name).covering(f"{name}.q") == []


async def test_the_keeper_creates_and_says_so(bus: Bus, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The first look creates what is missing, with a line in the log."""
    looks = Heard()
    keeper = StreamKeeper(
        bus, fleet(bus, name), request_subjects=[], on_poll=lambda ensured, _c: looks(ensured.created)
    )
    with caplog.at_level("INFO", "router.bus"):
        await keeper.start()
        assert await looks.until(1) == [(name.upper(), f"{name.upper()}/workers")]
    await keeper.stop()
    assert f"created in JetStream: {name.upper()}, {name.upper()}/workers" in caplog.text


async def test_the_keeper_lives_through_a_failing_callback(bus: Bus, name: str) -> None:
    """A bug of the one who listens does not end the looking."""
    looks = Heard()

    def broken(*_: object) -> None:
        looks(1)
        raise KeyError("x")

    keeper = StreamKeeper(bus, fleet(bus, name), request_subjects=[], on_poll=broken)
    await keeper.start()
    await looks.until(1)
    keeper.poll_soon()
    await looks.until(2)
    await keeper.stop()


async def test_the_keeper_sees_a_stream_over_a_request_subject(bus: Bus, name: str) -> None:
    """It says so at the look after the stream came, and takes it back when the stream is gone."""
    looks = Heard()
    subject = f"{name}.decide"
    keeper = StreamKeeper(bus, fleet(bus, name), request_subjects=[subject], on_poll=lambda _e, covered: looks(covered))
    await keeper.start()
    await looks.until(1)
    await create(bus, f"{name}-over", [f"{name}.decide"])
    keeper.poll_soon()
    await looks.until(2)
    await delete(bus, f"STREAM.DELETE.{name}-over")
    keeper.poll_soon()
    assert await looks.until(3) == [{}, {subject: [f"{name}-over"]}, {}]
    await keeper.stop()


def test_a_dedup_window_longer_than_the_age_is_refused() -> None:
    """The server would refuse it at creation (10052); the pod says so at start-up, for all such streams."""
    bad = [StreamSpec("A", ("a",), 60, 61), StreamSpec("B", ("b",), 60, 60), StreamSpec("C", ("c",), 1, 2)]
    with pytest.raises(StartupRefused, match=r"A: .*61 s.*60 s; C: "):
        specs.check(bad)


TOKENS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)


@given(TOKENS, TOKENS)
def test_literal_patterns_match_only_themselves(pattern: list[str], subject: list[str]) -> None:
    """Without wildcards matching is equality."""
    assert specs.matches(".".join(pattern), subject=".".join(subject)) == (pattern == subject)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.b", "a.b", True),
        ("a.*.c", "a.b.d", False),
    ],
)
def test_wildcards(pattern: str, subject: str, expected: bool) -> None:
    """`*` is one token, `>` one or more at the end."""
    assert specs.matches(pattern, subject=subject) is expected


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.>", "a.b", True),
        ("a.>", "a.>", True),
        ("a.*", "a.>", False),
        ("a.*", "a.*", True),
        ("a.>", "a.*", True),
        ("a.b", "a.*", False),
        ("a.*.c", "a.b.c", True),
        (">", "a.>", True),
        ("a.>", "a", False),
    ],
)
def test_a_pattern_covers_another(pattern: str, subject: str, expected: bool) -> None:
    """Each subject that the second matches, the first matches too."""
    assert specs.covers(pattern, subject=subject) is expected


async def test_a_foreign_stream_is_accepted_with_its_own_retention(bus: Bus, name: str) -> None:
    """A stream over more than the specification: no difference in age or dedup, and filtered consumers.

    NATS before 2.10 has one filter a consumer: a consumer that needs two is missing, with that reason.
    """
    await create(bus, name.upper(), [f"{name}.>"], max_age=60_000_000_000, duplicate_window=60_000_000_000)
    stream = StreamSpec(name.upper(), (f"{name}.a", f"{name}.b.*"), max_age_s=3600, dedup_s=600)
    streams = Streams(
        bus, [stream], [ConsumerSpec(stream=name.upper(), name="both", subjects=(f"{name}.a", f"{name}.b.*"))]
    )
    if bus.server_version < (2, 10, 0):
        assert "filters by one subject only" in (await streams.ensure()).missing[0].reason
        return
    assert await streams.ensure() == specs.Ensured(created=(f"{name.upper()}/both",))
    assert await streams.ensure() == specs.Ensured()
    state = await streams.consumer(name.upper(), name="both")
    assert state is not None
    assert state.config.filters == [f"{name}.a", f"{name}.b.*"]


async def test_before_nats_2_10_what_came_later_is_not_delivered(
    bus: Bus, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer of a foreign stream has one filter there: the needed subject, and no reason against the pod."""
    monkeypatch.setattr(Bus, "server_version", (2, 9, 25))
    await create(bus, name.upper(), [f"{name}.>"])
    stream = StreamSpec(name.upper(), (f"{name}.a",), 3600, added=(f"{name}.a.tenant.>",))
    streams = Streams(
        bus, [stream], [ConsumerSpec(stream=name.upper(), name="c", subjects=(f"{name}.a", f"{name}.a.tenant.>"))]
    )
    assert (await streams.ensure()).missing == ()
    state = await streams.consumer(name.upper(), name="c")
    assert state is not None
    assert state.config.filters == [f"{name}.a"]


async def test_subjects_that_came_later_are_a_difference_and_never_a_reason(bus: Bus, name: str) -> None:
    """A new stream has them. One of the version before lacks them, and the difference says how to add them."""
    spec = StreamSpec(name.upper(), (f"{name}.a",), 3600, 600, added=(f"{name}.a.tenant.>",))
    await create(bus, name.upper(), [f"{name}.a"], max_age=3600 * 10**9, duplicate_window=600 * 10**9)
    ensured = await Streams(bus, [spec]).ensure()
    assert ensured.missing == ()
    assert [one.fix for one in ensured.differences] == [
        f"nats stream edit {name.upper()} --subjects='{name}.a,{name}.a.tenant.>'"
    ]
    await delete(bus, f"STREAM.DELETE.{name.upper()}")
    assert (await Streams(bus, [spec]).ensure()).created == (name.upper(),)
    assert await Streams(bus, [spec]).ensure() == specs.Ensured()


@pytest.mark.parametrize(
    ("config", "words"),
    [({"subjects": ["X.other"]}, "does not store"), ({"subjects": ["X.a", "X.b.*"], "no_ack": True}, "no_ack")],
)
async def test_a_stream_that_cannot_serve_is_missing(
    bus: Bus, name: str, config: dict[str, object], words: str
) -> None:
    """It is there under its name, and lacks a subject or confirms nothing."""
    subjects = [str(s).replace("X", name) for s in config["subjects"]]  # type: ignore[attr-defined]
    await create(bus, name.upper(), **{**config, "subjects": subjects})  # type: ignore[arg-type]
    (missing,) = (await fleet(bus, name).ensure()).missing
    assert words in missing.reason


async def test_a_stream_of_several_kinds_is_never_created(bus: Bus, name: str) -> None:
    """It is somebody else's: the reason says over which subjects it must be."""
    shared = [StreamSpec(name, (f"{name}.a",), 3600), StreamSpec(name, (f"{name}.b",), 3600)]
    ensured = await Streams(bus, shared).ensure()
    assert ensured.created == ()
    assert {m.reason for m in ensured.missing} == {
        f"stream {name} does not exist; several settings name it, so create it over {name}.a, {name}.b"
    }


async def test_checks_that_find_a_stream_missing_come_less_and_less_often(bus: Bus, name: str) -> None:
    """Publishes that ask for a check do not hasten it; a reconnect does."""
    await create(bus, f"{name}-other", [f"{name}.>"])
    looks = Heard()
    keeper = StreamKeeper(
        bus, fleet(bus, name), request_subjects=[], retry_s=0.05, every_s=0.4, on_poll=lambda e, _c: looks(e.missing)
    )
    at: list[float] = []
    loop = asyncio.get_running_loop()
    await keeper.start()
    for count in range(1, 6):
        await looks.until(count)
        at.append(loop.time())
        keeper.poll_soon()
    await keeper.stop()
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert all(pause >= least for pause, least in zip(pauses, [0.04, 0.09, 0.19, 0.39], strict=True)), pauses
