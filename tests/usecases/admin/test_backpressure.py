"""The backpressure flag follows admission: in flight, refusals for overload, backlog; not the time of extensions."""

import orjson
import pytest

from router.telemetry.tally import Buckets
from router.usecases.admin.backpressure import Backpressure, RecentLatency

BOUNDS = (0.01, 1.0, 6.0)


class Pod:
    """What a pod measures."""

    def __init__(self, max_in_flight: int = 1024) -> None:
        self.lag: int | None = 0
        self.in_flight = 0
        self.shed_for_s = float("inf")
        self.all, self.extended = Buckets(BOUNDS), Buckets(BOUNDS)
        self.recent = RecentLatency(self.all.counts, self.all.bounds_ms, without=self.extended.counts)
        self.status = Backpressure(
            lambda: self.lag,
            self.recent,
            lambda: self.in_flight,
            lambda: 5,
            shed_for_s=lambda: self.shed_for_s,
            max_in_flight=max_in_flight,
        )

    async def data(self) -> dict[str, object]:
        """What the reply says."""
        body, _ = await self.status(b"", {}, "")
        return dict(orjson.loads(body)["data"])


@pytest.mark.parametrize(("bound", "threshold"), [(1024, 921), (100, 90), (10, 9), (1, 1), (1_000_000, 900_000)])
async def test_the_bound_of_the_pod_is_the_threshold(bound: int, threshold: int) -> None:
    """Nine tenths of ROUTER_MAX_IN_FLIGHT, in the reply and for the flag."""
    pod = Pod(bound)
    assert (await pod.data())["thresholds"] == {
        "queue_overload": 1000,
        "latency_overload_ms": 5000,
        "inflight_overload": threshold,
    }
    for in_flight, active in ((0, False), (threshold - 1, False), (threshold, True), (bound, True)):
        pod.in_flight = in_flight
        assert pod.status.active() is active


@pytest.mark.parametrize(("ago", "active"), [(0.0, True), (4.9, True), (5.1, False), (float("inf"), False)])
async def test_a_refusal_for_overload_lasts_five_seconds(ago: float, active: bool) -> None:
    """However few requests are in flight by then."""
    pod = Pod()
    pod.shed_for_s = ago
    assert pod.status.active() is active
    assert ((await pod.data())["status"] == "active") is active


async def test_slow_extensions_are_no_load() -> None:
    """Their requests do not count, however many; slow plain requests do, beside them."""
    pod = Pod()
    for _ in range(50):
        pod.all.observe(5.9)
        pod.extended.observe(5.9)
    assert not pod.status.active()
    assert (await pod.data())["metrics"] == {"pending_messages": 0, "latency_p95_ms": 0.0, "inflight_messages": 0}
    pod.all.observe(5.9)
    assert pod.status.active()
    for _ in range(100):
        pod.all.observe(0.001)
    assert (await pod.data())["status"] == "inactive"


async def test_a_request_that_falls_between_two_buckets_does_no_harm() -> None:
    """It is measured a moment later as one with extensions, and so maybe a bucket higher."""
    pod = Pod()
    pod.all.observe(0.0099)
    pod.extended.observe(0.0101)
    pod.all.observe(0.001)
    assert pod.recent.p95_ms() == 10.0


async def test_a_backlog_counts_and_an_unknown_one_is_said() -> None:
    """None: nobody knows."""
    pod = Pod()
    pod.lag = 1000
    assert pod.status.active()
    pod.lag = None
    assert (await pod.data())["status"] == "unknown"
