"""Metrics: right numbers, bounded labels, cheap to count."""

import asyncio
import time
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from router.domain.decide.decision import Answer, Code, Decided, Decision, Reason, Refused
from router.telemetry import Buckets, LoopLag, Telemetry, render
from router.usecases.admin.backpressure import RecentLatency
from router.wire.backpressure import Load, Pressure, pressure


def decided(*, reason: Reason = Reason.WEIGHTED, replayed: bool = False, degraded: bool = False) -> Decided:
    """An answer that differs from the plainest one only in what is named."""
    return Decided(Decision("p", reason, 1, 1, "default", 1, "id", degraded=degraded), replayed=replayed)


def refused(code: Code) -> Refused:
    """A refusal."""
    return Refused(code, "no")


def sample(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    """One number, as a scraper reads it."""
    for family in text_string_to_metric_families(render(telemetry.registry, backpressure_active=False).decode()):
        for s in family.samples:
            if s.name == name and s.labels == labels:
                return s.value
    return None


@pytest.mark.parametrize(("active", "line"), [(False, b"0"), (True, b"1")])
def test_the_first_line_is_the_backpressure_flag(active: bool, line: bytes) -> None:
    """An existing gateway reads nothing else; and it is there once."""
    text = render(Telemetry(CollectorRegistry()).registry, backpressure_active=active)
    assert text.split(b"\n", 1)[0] == b"router_intake_backpressure_active " + line
    assert text.count(b"router_intake_backpressure_active") == 1


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        (decided(), "decided", "weighted"),
        (decided(reason=Reason.CIRCUIT_BREAKER_FALLBACK), "decided", "circuit_breaker_fallback"),
        (decided(replayed=True), "replayed", "weighted"),
        (decided(degraded=True), "degraded", "weighted"),
        (refused(Code.RATE_LIMIT_EXCEEDED), "rate_limit_exceeded", "none"),
    ],
)
def test_every_answer_is_counted_once_under_what_it_was(answer: Answer, outcome: str, reason: str) -> None:
    """Outcome and reason are the words of the wire."""
    telemetry = Telemetry(CollectorRegistry())
    telemetry.decisions.count(answer, "acme", 0.001)
    assert sample(telemetry, "router_decisions_total", outcome=outcome, reason=reason, tenant="other") == 1
    assert sample(telemetry, "router_decision_seconds_count") == 1


def test_only_listed_tenants_have_a_label() -> None:
    """A flood of tenant names makes no series."""
    telemetry = Telemetry(CollectorRegistry(), tenants=["acme"])
    for i in range(1000):
        telemetry.decisions.count(decided(), f"tenant-{i}", 0.001)
    telemetry.decisions.count(decided(), "acme", 0.001)
    text = render(telemetry.registry, backpressure_active=False).decode()
    assert sum(line.startswith("router_decisions_total{") for line in text.splitlines()) == 2
    assert sample(telemetry, "router_decisions_total", outcome="decided", reason="weighted", tenant="other") == 1000


def test_the_gate_switches_tenant_labels_off_and_keeps_what_was_counted() -> None:
    """A counter never goes back."""
    telemetry = Telemetry(CollectorRegistry(), tenants=["acme"])
    telemetry.decisions.count(decided(), "acme", 0.001)
    telemetry.decisions.per_tenant(False)
    telemetry.decisions.count(decided(), "acme", 0.001)
    assert sample(telemetry, "router_decisions_total", outcome="decided", reason="weighted", tenant="acme") == 1
    assert sample(telemetry, "router_decisions_total", outcome="decided", reason="weighted", tenant="other") == 1


def test_other_metrics_label_tenants_alike() -> None:
    """Named ones by name while the gate lets them, all others as `other`."""
    telemetry = Telemetry(CollectorRegistry(), tenants=["acme"])
    assert (telemetry.decisions.label("acme"), telemetry.decisions.label("globex")) == ("acme", "other")
    telemetry.decisions.per_tenant(False)
    assert telemetry.decisions.label("acme") == "other"


@given(st.lists(st.floats(0, 100), max_size=50))
def test_buckets_count_like_a_histogram(values: list[float]) -> None:
    """Every value is in all buckets whose bound it does not exceed."""
    bounds = [0.5, 1.0, 10.0]
    buckets = Buckets(bounds)
    for v in values:
        buckets.observe(v)
    expected = [(str(b), sum(v <= b for v in values)) for b in bounds] + [("+Inf", len(values))]
    assert buckets.cumulative() == expected
    assert sum(buckets.counts[: bisect_left(bounds, 1.0) + 1]) == expected[1][1]


def test_two_pods_in_one_process_do_not_share_metrics() -> None:
    """The registry is passed in, so nothing is global."""
    one, two = Telemetry(CollectorRegistry()), Telemetry(CollectorRegistry())
    one.store_reseeded.inc()
    assert sample(one, "router_store_reseeded_total") == 1
    assert sample(two, "router_store_reseeded_total") == 0


def test_counting_a_decision_costs_less_than_a_microsecond() -> None:
    """The best of many short runs, so that a busy machine does not decide."""
    telemetry = Telemetry(CollectorRegistry(), tenants=[f"t{i}" for i in range(100)])
    count, answer = telemetry.decisions.count, decided()
    best = 1.0
    for _ in range(200):
        began = time.perf_counter()
        for _ in range(200):
            count(answer, "t50", 0.0013)
        best = min(best, (time.perf_counter() - began) / 200)
    assert best < 1e-6


def test_a_total_is_read_when_somebody_looks() -> None:
    """The room that counts needs to know nothing of metrics."""
    telemetry, seen = Telemetry(CollectorRegistry()), [1]
    telemetry.redeliveries.read_from(lambda: seen[0], "result")
    seen[0] = 5
    assert sample(telemetry, "router_redeliveries_total", stream="result") == 5


def test_every_metric_is_in_the_reference_as_it_is() -> None:
    """Name and type; nothing is served that is not described."""
    telemetry = Telemetry(CollectorRegistry())
    text = render(telemetry.registry, backpressure_active=False).decode()
    families = {f.name: f.type for f in text_string_to_metric_families(text) if not f.name.startswith("process_")}
    described = {r.name.removesuffix("_total"): r.kind for r in telemetry.rows}
    first = "router_intake_backpressure_active"
    assert families.pop(first) == "unknown"
    assert described.pop(first) == "gauge"
    assert families == described


def test_labels_must_fit_the_family() -> None:
    """A wrong number of label values is a bug at start-up, not a broken scrape."""
    with pytest.raises(ValueError, match="labels"):
        Telemetry(CollectorRegistry()).store_call_seconds.child("decide", "extra")
    with pytest.raises(ValueError, match="labels"):
        Telemetry(CollectorRegistry()).redeliveries.read_from(lambda: 0)


@pytest.mark.parametrize(
    ("seconds", "found"), [(1.5, Pressure.INACTIVE), (3.5, Pressure.WARNING), (6.0, Pressure.ACTIVE)]
)
def test_slow_answers_reach_the_bound_of_the_status(seconds: float, found: Pressure) -> None:
    """The buckets go beyond the five seconds at which callers are told to slow down."""
    latency = Telemetry(CollectorRegistry()).latency
    recent = RecentLatency(latency.counts, latency.bounds_ms)
    for _ in range(20):
        latency.observe(seconds)
    assert pressure(Load(0, recent.p95_ms(), 0)) is found


async def test_loop_lag_sees_a_blocked_loop() -> None:
    """A callback that holds the loop shows up in the histogram."""
    buckets = Buckets((0.02, 10.0))
    lag = LoopLag(buckets, every_s=0.001)
    lag.start()
    loop = asyncio.get_running_loop()
    measured = asyncio.Event()

    def hold() -> None:
        until = time.perf_counter() + 0.06
        while time.perf_counter() < until:
            pass

    def look() -> None:
        if buckets.counts[1]:
            measured.set()
        else:
            loop.call_later(0.001, look)

    loop.call_later(0.002, hold)
    look()
    try:
        await asyncio.wait_for(measured.wait(), 5)
    finally:
        lag.stop()
    assert buckets.counts[1] >= 1
