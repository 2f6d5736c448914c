"""One alert per episode, for the whole fleet, whatever is away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import orjson
import pytest
from prometheus_client import CollectorRegistry

from router.domain.alert import ALERTS, FLEET, Alert, Condition, Severity
from router.domain.json import JsonObject
from router.errors import StoreUnavailable
from router.ports.bus import Publication, Published
from router.telemetry import Telemetry
from router.usecases.alerts.alerts import ABANDONED_MS, QUIET_MS, Alerts
from router.usecases.alerts.thresholds import MAX_READINGS, Level, Unavailable

AWAY = Condition.STORE_AWAY


class Stream:
    """JetStream as far as alerts see it: keeps what is published while it is up, once per Msg-Id."""

    def __init__(self) -> None:
        self.up = True
        self.messages: dict[str, Publication] = {}
        self.tried = asyncio.Event()

    def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
        if self.up:
            self.messages.setdefault(publication.message_id, publication)
        self.tried.set()
        done(Published.STORED if self.up else Published.REFUSED)

    def bodies(self) -> list[JsonObject]:
        """The payloads in order."""
        return [orjson.loads(m.payload) for m in self.messages.values()]


class CountedEpochs:
    """The fleet's episodes, in memory: the model of what the store promises."""

    def __init__(self) -> None:
        self.up = True
        self.open: dict[tuple[str, str], int] = {}
        self.joined: set[tuple[str, str]] = set()
        self.count: dict[tuple[str, str], int] = {}

    async def begin(self, condition: str, scope: str) -> int:
        if not self.up:
            raise StoreUnavailable("away")
        key = condition, scope
        if key not in self.open:
            self.open[key] = self.count[key] = self.count.get(key, 0) + 1
        self.joined.add(key)
        return self.open[key]

    async def stale(self, quiet_ms: int) -> list[tuple[str, str]]:
        if not self.up:
            raise StoreUnavailable("away")
        assert quiet_ms == ABANDONED_MS
        return sorted(self.open.keys() - self.joined)

    async def current(self, condition: str, scope: str) -> int | None:
        if not self.up:
            raise StoreUnavailable("away")
        return self.open.get((condition, scope))

    async def end(self, condition: str, scope: str, epoch: int) -> None:
        if not self.up:
            raise StoreUnavailable("away")
        if self.open.get((condition, scope)) == epoch:
            del self.open[condition, scope]


class Fleet:
    """What pods share: the stream, the epochs and the time."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.epochs = CountedEpochs()
        self.now_ms = 1_700_000_000_000

    @asynccontextmanager
    async def pod(self, calm_ms: int = 0) -> AsyncIterator[Alerts]:
        """One pod's alerts, running."""
        telemetry = Telemetry(CollectorRegistry())
        alerts = Alerts(self.stream, self.epochs, encode, telemetry, lambda: self.now_ms, retry_s=60, calm_ms=calm_ms)
        task = asyncio.create_task(alerts.run())
        try:
            yield alerts
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def encode(alert: Alert) -> tuple[bytes, dict[str, str]]:
    """A stand-in for the wire: everything, as JSON."""
    return orjson.dumps({"id": alert.alert_id, "severity": alert.severity, "metadata": alert.metadata}), {"ce-id": "x"}


async def sent(alerts: Alerts) -> None:
    """Everything was sent, soon."""
    await asyncio.wait_for(alerts.sent(), 5)


async def test_an_episode_is_told_once_and_ends_under_the_same_id() -> None:
    """Raised again and again, resolved once: two messages, one alert_id."""
    fleet = Fleet()
    async with fleet.pod() as alerts:
        for _ in range(5):
            alerts.raise_(AWAY, FLEET, metadata={"reason": "timeout"})
        alerts.resolve(AWAY, FLEET)
        alerts.resolve(AWAY, FLEET)
        await sent(alerts)
    raised, resolved = fleet.stream.bodies()
    assert raised["id"] == resolved["id"] == "store_away:fleet:1"
    assert (raised["severity"], resolved["severity"]) == ("critical", "info")
    assert raised["metadata"] == {"reason": "timeout", "condition": "store_away", "scope": "fleet"}
    assert resolved["metadata"] == raised["metadata"] | {"resolved": True}


async def test_the_subject_ends_in_the_severity() -> None:
    """beamline.alert.v1.critical, and .info when it is over."""
    fleet = Fleet()
    async with fleet.pod() as alerts:
        alerts.raise_(AWAY, FLEET)
        alerts.resolve(AWAY, FLEET)
        await sent(alerts)
    subjects = [m.subject for m in fleet.stream.messages.values()]
    assert subjects == ["beamline.alert.v1.critical", "beamline.alert.v1.info"]


async def test_two_pods_tell_it_once() -> None:
    """Both see it; their messages have one Msg-Id, so the stream keeps one of each."""
    fleet = Fleet()
    async with fleet.pod() as one, fleet.pod() as two:
        one.raise_(AWAY, FLEET)
        two.raise_(AWAY, FLEET)
        await sent(one)
        await sent(two)
        one.resolve(AWAY, FLEET)
        two.resolve(AWAY, FLEET)
        await sent(one)
        await sent(two)
    assert list(fleet.stream.messages) == ["store_away:fleet:1", "store_away:fleet:1:resolved"]


async def test_the_next_episode_has_the_next_epoch() -> None:
    """The dedup window cannot swallow it."""
    fleet = Fleet()
    async with fleet.pod() as alerts:
        for _ in range(2):
            alerts.raise_(AWAY, FLEET)
            alerts.resolve(AWAY, FLEET)
        await sent(alerts)
    assert [b["id"] for b in fleet.stream.bodies()] == ["store_away:fleet:1"] * 2 + ["store_away:fleet:2"] * 2


async def test_any_pod_ends_what_turns_in_the_store() -> None:
    """One pod sees the breaker open, another sees it close, twice: two episodes, each with its end, which names it."""
    fleet = Fleet()
    opened, scope = Condition.BREAKER_OPENED, "acme/p1"
    named: JsonObject = {"tenant_id": "acme", "provider_id": "p1"}
    async with fleet.pod() as one, fleet.pod() as two:
        for pod, other in ((one, two), (one, two)):
            pod.raise_(opened, scope, metadata=named)
            await sent(pod)
            other.resolve(opened, scope, metadata=named)
            await sent(other)
    ids = ["breaker_opened:acme/p1:1", "breaker_opened:acme/p1:2"]
    assert list(fleet.stream.messages) == [ids[0], f"{ids[0]}:resolved", ids[1], f"{ids[1]}:resolved"]
    told = named | {"condition": opened.value, "scope": scope}
    assert [b["metadata"] for b in fleet.stream.bodies()] == [told, told | {"resolved": True}] * 2


async def test_an_end_of_what_turns_waits_for_the_store_and_holds_nobody_up() -> None:
    """Which episode ends is in Redis: while that is away the end waits, and what came after it is sent."""
    fleet = Fleet()
    opened, scope = Condition.BREAKER_OPENED, "acme/p1"
    async with fleet.pod() as alerts:
        alerts.raise_(opened, scope)
        await sent(alerts)
        fleet.epochs.up = False
        fleet.stream.tried.clear()
        alerts.resolve(opened, scope)
        alerts.raise_(AWAY, FLEET)
        while not fleet.stream.tried.is_set():
            alerts.retry_now()
            await asyncio.sleep(0)
        fleet.epochs.up = True
        alerts.retry_now()
        await sent(alerts)
    messages = list(fleet.stream.messages)
    assert messages[-1] == "breaker_opened:acme/p1:1:resolved"
    assert messages[1].startswith("store_away:fleet:w")


async def test_scopes_are_episodes_of_their_own() -> None:
    """One tenant's breaker says nothing of another's."""
    fleet = Fleet()
    async with fleet.pod() as alerts:
        alerts.raise_(Condition.BREAKER_OPENED, "acme/p1")
        alerts.raise_(Condition.BREAKER_OPENED, "globex/p1")
        await sent(alerts)
    assert len(fleet.stream.messages) == 2


async def test_without_the_store_the_wall_clock_counts() -> None:
    """Redis away is itself alerted: pods that see it in the same 10 minutes use one id, and it ends under that id."""
    fleet = Fleet()
    fleet.epochs.up = False
    async with fleet.pod() as one, fleet.pod() as two:
        one.raise_(AWAY, FLEET)
        two.raise_(AWAY, FLEET)
        await sent(one)
        await sent(two)
        fleet.epochs.up = True
        fleet.now_ms += 3_600_000
        one.resolve(AWAY, FLEET)
        await sent(one)
    first, second = fleet.stream.messages
    assert first == f"store_away:fleet:w{1_700_000_000_000 // 600_000}"
    assert second == f"{first}:resolved"


async def test_an_end_that_the_store_did_not_hear_does_not_swallow_the_next_episode() -> None:
    """The episode is closed late, and the next one still has an id of its own."""
    fleet = Fleet()
    async with fleet.pod() as alerts:
        alerts.raise_(AWAY, FLEET)
        await sent(alerts)
        fleet.epochs.up = False
        alerts.resolve(AWAY, FLEET)
        await sent(alerts)
        fleet.epochs.up = True
        alerts.raise_(AWAY, FLEET)
        await sent(alerts)
    assert [b["id"] for b in fleet.stream.bodies()][-1] == "store_away:fleet:2"


async def test_what_could_not_be_sent_is_sent_in_order_when_nats_is_back() -> None:
    """The beginning and the end of an outage of NATS itself are told afterwards, as one episode."""
    fleet = Fleet()
    fleet.stream.up = False
    async with fleet.pod() as alerts:
        alerts.raise_(Condition.BUS_AWAY, FLEET)
        await asyncio.wait_for(fleet.stream.tried.wait(), 5)
        alerts.resolve(Condition.BUS_AWAY, FLEET)
        fleet.stream.up = True
        alerts.retry_now()
        await sent(alerts)
    assert list(fleet.stream.messages) == ["bus_away:fleet:1", "bus_away:fleet:1:resolved"]


async def test_what_only_happens_is_over_after_a_quiet_time() -> None:
    """Each happening starts the quiet time anew."""
    fleet = Fleet()
    async with fleet.pod() as alerts:
        alerts.occurred(Condition.DEAD_LETTERS, "caf.exec.result.v1")
        fleet.now_ms += QUIET_MS - 1
        alerts.occurred(Condition.DEAD_LETTERS, "caf.exec.result.v1")
        fleet.now_ms += QUIET_MS - 1
        alerts.retry_now()
        await sent(alerts)
        assert len(fleet.stream.messages) == 1
        fleet.now_ms += 1
        fleet.stream.tried.clear()
        alerts.retry_now()
        await asyncio.wait_for(fleet.stream.tried.wait(), 5)
    assert len(fleet.stream.messages) == 2


async def test_what_comes_and_goes_is_one_episode() -> None:
    """It ends when it was calm for a while, and says when the calm began; what comes back before that goes on."""
    fleet = Fleet()
    async with fleet.pod(calm_ms=30_000) as alerts:
        for _ in range(5):
            alerts.raise_(AWAY, FLEET)
            alerts.resolve(AWAY, FLEET)
            fleet.now_ms += 29_999
            alerts.retry_now()
            await sent(alerts)
        alerts.resolve(AWAY, FLEET)
        assert list(fleet.stream.messages) == ["store_away:fleet:1"]
        fleet.now_ms += 1
        fleet.stream.tried.clear()
        alerts.retry_now()
        await asyncio.wait_for(fleet.stream.tried.wait(), 5)
        await sent(alerts)
        assert list(fleet.stream.messages) == ["store_away:fleet:1", "store_away:fleet:1:resolved"]
        alerts.raise_(AWAY, FLEET)
        await sent(alerts)
    assert list(fleet.stream.messages)[-1] == "store_away:fleet:2"


@pytest.mark.parametrize(
    ("readings", "raised"),
    [
        ("..!.............................", False),
        ("..!!............................", False),
        ("..!!!", True),
        (".!.!.!", True),
        ("!.........!.........!", True),
        ("!..............!..............!", False),
    ],
)
async def test_only_what_lasts_or_comes_again_is_an_outage(readings: str, raised: bool) -> None:
    """Three seconds of the last thirty, in one piece or not: a short cut is nothing to wake somebody for."""
    fleet = Fleet()
    async with fleet.pod(calm_ms=30_000) as alerts:
        away = Unavailable(alerts, AWAY, FLEET, minimum=3)
        for one in readings:
            away.read(one == "!", {"reason": "test"})
        await sent(alerts)
        assert bool(fleet.stream.messages) is raised
        for _ in range(MAX_READINGS):
            away.read(False)
        fleet.now_ms += 30_000
        alerts.retry_now()
        if raised:
            fleet.stream.tried.clear()
            await asyncio.wait_for(fleet.stream.tried.wait(), 5)
            await sent(alerts)
            assert len(fleet.stream.messages) == 2


async def test_what_its_pod_left_open_is_ended_by_another() -> None:
    """Whoever held it was replaced: under the same id; what somebody holds, or turns in the store, stays."""
    fleet = Fleet()
    turning = Condition.BREAKER_OPENED, "acme/p1"
    async with fleet.pod() as dead:
        dead.raise_(AWAY, FLEET)
        dead.raise_(*turning)
        await sent(dead)
    async with fleet.pod() as one, fleet.pod() as two:
        two.raise_(Condition.BUS_AWAY, FLEET)
        await sent(two)
        fleet.epochs.joined.clear()
        await two.join()
        fleet.stream.tried.clear()
        await one.end_abandoned()
        await sent(one)
        await one.end_abandoned()
        await sent(one)
    ends = [b for b in fleet.stream.bodies() if b["severity"] == "info"]
    assert [b["id"] for b in ends] == ["store_away:fleet:1"]
    assert set(fleet.epochs.open) == {turning, ("bus_away", FLEET)}


async def test_what_holds_still_begins_again_when_another_pod_has_ended_it() -> None:
    """One pod's view does not hide what the other one sees; what only happened there waits for the next time."""
    fleet = Fleet()
    letters = Condition.DEAD_LETTERS, "caf.exec.result.v1"
    async with fleet.pod() as one, fleet.pod() as two:
        for pod in (one, two):
            pod.raise_(AWAY, FLEET, metadata={"reason": "timeout"})
            pod.occurred(*letters)
            await sent(pod)
        one.resolve(AWAY, FLEET)
        await sent(one)
        await fleet.epochs.end(*letters, 1)
        await two.join()
        await sent(two)
        again = fleet.stream.bodies()[-1]
        assert (again["id"], again["severity"]) == ("store_away:fleet:2", "critical")
        assert fleet.epochs.open == {("store_away", FLEET): 2}
        two.resolve(AWAY, FLEET)
        two.occurred(*letters)
        await sent(two)
    assert [b["id"] for b in fleet.stream.bodies()[-2:]] == ["store_away:fleet:2", "dead_letters:caf.exec.result.v1:2"]


async def test_waiting_alerts_are_bounded() -> None:
    """Beyond the bound an alert is lost, counted, and may be raised again later."""
    fleet = Fleet()
    telemetry = Telemetry(CollectorRegistry())
    alerts = Alerts(fleet.stream, fleet.epochs, encode, telemetry, lambda: 0)
    for i in range(1_001):
        alerts.raise_(AWAY, str(i))
    assert telemetry.registry.get_sample_value("router_alerts_lost_total") == 1
    task = asyncio.create_task(alerts.run())
    await sent(alerts)
    alerts.raise_(AWAY, "1000")
    await sent(alerts)
    task.cancel()
    assert len(fleet.stream.messages) == 1_001


async def test_a_level_needs_several_readings_each_way() -> None:
    """One spike raises nothing, one dip resolves nothing, and between the bounds nothing changes."""
    fleet = Fleet()
    async with fleet.pod() as alerts:
        level = Level(alerts, Condition.STORE_MEMORY, "n1", raise_at=0.9, clear_at=0.8, hold=2)
        for value in (0.95, 0.5, 0.95, 0.85, 0.95):
            level.read(value)
        await sent(alerts)
        assert not fleet.stream.messages
        for value in (0.95, 0.85, 0.5, 0.85, 0.5):
            level.read(value)
        await sent(alerts)
        assert list(fleet.stream.messages) == ["store_memory:n1:1"]
        level.read(0.5)
        await sent(alerts)
        assert len(fleet.stream.messages) == 2


def test_a_level_cannot_clear_above_where_it_raises() -> None:
    """It would flap for ever."""
    fleet = Fleet()
    alerts = Alerts(fleet.stream, fleet.epochs, encode, Telemetry(CollectorRegistry()), lambda: 0)
    with pytest.raises(ValueError, match="clears at"):
        Level(alerts, Condition.STORE_MEMORY, "n1", raise_at=0.8, clear_at=0.9)


def test_every_condition_has_its_words() -> None:
    """None can be raised that has no severity and message; only an end is info."""
    assert set(ALERTS) == set(Condition)
    assert all(k.severity is not Severity.INFO and k.message for k in ALERTS.values())
