"""What a sample says of the store: scaled up, told by one pod at a time, alerted with patience."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from router.domain.alert import Condition
from router.ports.tenants import SamplePage
from router.telemetry import Telemetry
from router.usecases.sampling.store_keys import WINDOW, StoreKeySampler
from tests.usecases.fakes.alerts import RecordedAlerts

KINDS = ("idem", "pin", "other")
MIB = 1 << 20


class Store:
    """Pages that are given; `leads` says whether this pod is the one."""

    def __init__(self, pages: Iterable[SamplePage]) -> None:
        self._pages = iter(pages)
        self.leads = True

    async def lead(self, lease_ms: int) -> bool:
        """As told."""
        assert lease_ms > 1_000
        return self.leads

    async def page(self) -> SamplePage:
        """The next one."""
        return next(self._pages)


class Pod:
    """A census over these pages."""

    def __init__(self, *pages: SamplePage) -> None:
        self.store = Store(pages)
        self.telemetry = Telemetry(CollectorRegistry(), store_kinds=KINDS)
        self.alerts = RecordedAlerts()
        self.census = StoreKeySampler(self.store, self.telemetry, self.alerts, max_bytes=MIB, may_work=lambda: True)

    def read(self, name: str, **labels: str) -> float | None:
        """A metric."""
        return self.telemetry.registry.get_sample_value(f"router_store_{name}", labels)


async def test_a_sample_is_scaled_up_to_all_keys() -> None:
    """500 of 10,000 keys: counts times twenty, bytes by the mean of those that were measured; the share is told."""
    pod = Pod(SamplePage(10_000, {"idem": 400, "pin": 100}, {"idem": [150, 250], "pin": [100]}))
    assert await pod.census.step()
    assert (pod.read("keys", kind="idem"), pod.read("key_bytes", kind="idem")) == (8_000, 1_600_000)
    assert (pod.read("keys", kind="pin"), pod.read("keys", kind="other")) == (2_000, 0)
    assert pod.read("sampled_share") == 0.05


async def test_pages_add_up_and_old_ones_leave() -> None:
    """A kind that is in one page only weighs less with each; what left the window is forgotten."""
    first, later = SamplePage(1_000, {"pin": 10}, {"pin": [64]}), SamplePage(1_000, {"idem": 10}, {"idem": [200]})
    pod = Pod(first, *[later] * WINDOW)
    await pod.census.step()
    await pod.census.step()
    assert pod.read("keys", kind="pin") == 500
    for _ in range(WINDOW - 1):
        await pod.census.step()
    assert (pod.read("keys", kind="pin"), pod.read("keys", kind="idem")) == (0, 1_000)


async def test_an_empty_store_is_known_whole() -> None:
    """Nothing is divided by nothing."""
    pod = Pod(SamplePage(0, {}, {}))
    assert await pod.census.step()
    assert pod.read("keys", kind="idem") == 0


async def test_a_kind_that_grows_too_large_is_an_alert_until_it_shrinks() -> None:
    """After three looks in a row, either way."""
    large, small = SamplePage(10_000, {"idem": 10}, {"idem": [200]}), SamplePage(10, {"idem": 10}, {"idem": [200]})
    pod = Pod(*[large] * 3, *[small] * 3)
    for _ in range(2):
        await pod.census.step()
    assert not pod.alerts.open
    await pod.census.step()
    assert pod.alerts.open == {Condition.STORE_KIND_LARGE}
    for _ in range(3):
        await pod.census.step()
    assert not pod.alerts.open


async def test_who_leads_no_more_tells_nothing_more() -> None:
    """Else two pods would be counted; the next leader raises what still holds."""
    pod = Pod(*[SamplePage(10_000, {"idem": 10}, {"idem": [200]})] * 3)
    for _ in range(3):
        await pod.census.step()
    pod.store.leads = False
    assert not await pod.census.step()
    assert (pod.read("keys", kind="idem"), pod.read("sampled_share")) == (0, 0)
    assert not pod.alerts.open
