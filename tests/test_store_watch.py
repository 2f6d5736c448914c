"""Whether the store is away, as the lanes of several nodes tell it."""

from prometheus_client import CollectorRegistry

from router.app.observers import StoreWatch
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
