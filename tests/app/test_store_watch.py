"""Whether the store is away, as the lanes of several nodes tell it; steps of its clock."""

import pytest
from prometheus_client import CollectorRegistry

from router.app.observers.store_watch import StoreWatch
from router.domain.alert import FLEET, Condition
from router.domain.json import JsonObject
from router.telemetry import Telemetry


def test_the_store_is_away_until_every_node_is_back() -> None:
    """Of a Cluster two nodes fall and one comes back: still away, until the other one is back."""
    told: list[str] = []
    registry = CollectorRegistry()
    watch = StoreWatch(Telemetry(registry))
    watch.on_away.append(lambda: told.append("away"))
    watch.on_back.append(lambda: told.append("back"))
    down = watch.hooks().on_down
    for turn in (True, True, False):
        down(turn, "test")
        assert registry.get_sample_value("router_store_breaker_open") == 1
    down(False, "test")
    assert registry.get_sample_value("router_store_breaker_open") == 0
    assert told == ["away", "away", "back"]


def test_the_store_refuses_until_every_node_takes_calls() -> None:
    """Of a Cluster two nodes are full and one has room again: still away, until the other one has."""
    told: list[str] = []
    registry = CollectorRegistry()
    watch = StoreWatch(Telemetry(registry))
    watch.on_back.append(lambda: told.append("back"))
    refused, one, other = watch.hooks().on_refused, object(), object()
    for lane, why in ((one, "OOM"), (other, "OOM"), (one, "OOM"), (one, None)):
        refused(lane, why)
        assert registry.get_sample_value("router_store_breaker_open") == 1
    refused(other, None)
    assert registry.get_sample_value("router_store_breaker_open") == 0
    assert told == ["back"]


def test_calls_that_replicas_do_not_confirm_are_logged_once_a_minute_for_each_script(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are counted; the next line of a script says how many were left out."""
    now = 0.0
    monkeypatch.setattr("router.app.observers.store_watch.time.monotonic", lambda: now)
    registry = CollectorRegistry()
    unconfirmed = StoreWatch(Telemetry(registry)).hooks().on_unconfirmed
    for script in ("decide",) * 1_000 + ("settle",) * 10:
        unconfirmed(script)
    now = 61.0
    unconfirmed("decide")
    lines = [(vars(r)["script"], vars(r)["unsaid"]) for r in caplog.records]
    assert lines == [("decide", 0), ("settle", 0), ("decide", 999)]
    for script, count in (("decide", 1_001), ("settle", 10)):
        assert registry.get_sample_value("router_store_unconfirmed_total", {"script": script}) == count


class Sink:
    """Alerts that were raised."""

    def __init__(self) -> None:
        self.seen: list[tuple[Condition, str, str, JsonObject | None]] = []

    def occurred(
        self, condition: Condition, scope: str, *, message: str = "", metadata: JsonObject | None = None
    ) -> None:
        """An event without an end of its own."""
        self.seen.append((condition, scope, message, metadata))

    raise_ = occurred

    def resolve(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """No step of a clock is resolved."""
        raise AssertionError(scope)


@pytest.mark.parametrize(
    ("ms", "direction", "words"),
    [
        (7_200_000.4, "forward", "7,200.0 s"),
        (-7_200_000.4, "back", "7,200.0 s"),
        (-1_500.0, "back", "1.5 s"),
        (1e12, "forward", "1,000,000,000.0 s"),
    ],
)
def test_a_step_of_the_clock_is_counted_and_alerted(ms: float, direction: str, words: str) -> None:
    """By its direction, with its length; a pod whose alerts are not up yet counts it."""
    registry, sink = CollectorRegistry(), Sink()
    watch = StoreWatch(Telemetry(registry))
    watch.hooks().on_clock_step(ms)
    watch.alerts = sink
    watch.hooks().on_clock_step(ms)
    assert registry.get_sample_value("router_store_clock_steps_total", {"direction": direction}) == 2
    message = f"Redis' clock went {direction} by {words}"
    metadata: JsonObject = {"step_ms": round(ms), "direction": direction}
    assert sink.seen == [(Condition.CLOCK_STEPPED, FLEET, message, metadata)]


def test_a_reason_that_changes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """After a cut connection the cause is what the next tries say, once: a refused password, for example."""
    hooks = StoreWatch(Telemetry(CollectorRegistry())).hooks()
    hooks.on_down(True, "Connection closed by server.")
    for why in ("Connection closed by server.", "invalid password", "invalid password", "connection refused"):
        hooks.on_still_down(why)
    hooks.on_still_down("invalid password")
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        "store unavailable: Connection closed by server.",
        "store still unavailable: invalid password",
        "store still unavailable: connection refused",
    ]
