"""What a pod tells of limits and breakers: the fullest and how many, by closed labels, by one pod at a time."""

from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from router.domain.policy.limit_usage import Counter, LimitUsage
from router.domain.policy.limits import limit
from router.domain.policy.model import Policy, StoredPolicy, TenantPolicies, provider
from router.domain.policy.vocabulary import Resource, Scope
from router.errors import StoreError, StoreUnavailable
from router.telemetry import Telemetry
from router.usecases.sampling.limit_usage import AT_ONCE, LimitUsageSampler

LIMITS = (
    limit("minute", Scope.TENANT, Resource.REQUESTS, 10, 60_000),
    limit("hour", Scope.TENANT, Resource.REQUESTS, 100, 3_600_000),
    limit("tokens", Scope.POLICY, Resource.TOKENS, 1_000, 60_000),
)


def tenant(name: str) -> TenantPolicies:
    """A tenant with these limits."""
    stored = StoredPolicy("default", 1, "", Policy((provider("a"),), limits=LIMITS))
    return TenantPolicies(name, 1, bytes(8), {"default": stored})


class Store:
    """Answers as told."""

    def __init__(self, standings: dict[str, LimitUsage | None]) -> None:
        self.standings = standings
        self.away = False
        self.max_at_once = 0

    async def measure(self, tenants: Sequence[tuple[str, tuple[Counter, ...]]]) -> list[LimitUsage | None]:
        """In order."""
        if self.away:
            raise StoreUnavailable("away")
        self.max_at_once = max(self.max_at_once, len(tenants))
        return [self.standings[name] for name, _ in tenants]


class Pod:
    """A pod that holds these tenants."""

    def __init__(self, **standings: LimitUsage | None) -> None:
        self.telemetry = Telemetry(CollectorRegistry(), tenants=("acme",))
        self.store = Store(standings)
        self.leads = True
        held = lambda: [tenant(t) for t in self.store.standings]  # noqa: E731
        self.measure = LimitUsageSampler(self.store, held, self._lead, self.telemetry, may_work=lambda: True)

    async def _lead(self, lease_ms: int) -> bool:
        assert lease_ms > 10_000, "it must outlive the time to the next look"
        return self.leads

    def read(self, name: str, **labels: str) -> float | None:
        """A metric."""
        return self.telemetry.registry.get_sample_value(f"router_{name}", labels)

    def full(self, scope: str, resource: str, of: str = "other") -> float | None:
        """How full the fullest limit of a kind is."""
        return self.read("limit_used_ratio", scope=scope, resource=resource, tenant=of)


async def test_the_fullest_limit_of_a_kind_is_told() -> None:
    """Of all tenants that share a label; a tenant of ROUTER_METRICS_TENANTS has its own."""
    pod = Pod(
        acme=LimitUsage(open=0, half_open=0, forced=0, used=(2, 50, 100)),
        globex=LimitUsage(open=0, half_open=0, forced=0, used=(9, 1, 10)),
        x=LimitUsage(open=0, half_open=0, forced=0, used=(0, 95, 20)),
    )
    await pod.measure.poll()
    assert pod.full("tenant", "requests", "acme") == 0.5
    assert pod.full("tenant", "requests") == 0.95
    assert pod.full("policy", "tokens") == 0.02
    assert pod.read("limits_near", scope="tenant", resource="requests") == 2
    assert pod.read("limits_near", scope="policy", resource="tokens") == 0
    assert pod.read("measured_tenants") == 3


async def test_breakers_add_up_over_tenants() -> None:
    """By state; a tenant that cannot be read is left out."""
    pod = Pod(
        a=LimitUsage(open=2, half_open=0, forced=1, used=(0, 0, 0)),
        b=None,
        c=LimitUsage(open=1, half_open=1, forced=0, used=(0, 0, 0)),
    )
    await pod.measure.poll()
    assert [pod.read("breakers", state=s) for s in ("open", "half_open", "forced")] == [3, 1, 1]


async def test_a_tenant_without_a_label_of_its_own_in_the_baseline() -> None:
    """The gate takes tenants' labels away; what was told under one is told as empty."""
    pod = Pod(acme=LimitUsage(open=0, half_open=0, forced=0, used=(9, 0, 0)))
    pod.telemetry.decisions.per_tenant(True)
    await pod.measure.poll()
    pod.telemetry.decisions.per_tenant(False)
    await pod.measure.poll()
    assert (pod.full("tenant", "requests", "acme"), pod.full("tenant", "requests")) == (0, 0.9)


async def test_what_is_over_is_told_as_over() -> None:
    """A limit that nobody fills any more, and tenants that have left, do not stay as they were."""
    pod = Pod(a=LimitUsage(open=3, half_open=0, forced=0, used=(10, 0, 0)))
    await pod.measure.poll()
    pod.store.standings = {}
    await pod.measure.poll()
    assert pod.full("tenant", "requests") == 0
    assert pod.read("limits_near", scope="tenant", resource="requests") == 0
    assert (pod.read("breakers", state="open"), pod.read("measured_tenants")) == (0, 0)


async def test_who_leads_no_more_tells_nothing_more() -> None:
    """Else what was is told beside what is."""
    pod = Pod(a=LimitUsage(open=3, half_open=0, forced=0, used=(10, 0, 0)))
    await pod.measure.poll()
    pod.leads = False
    await pod.measure.poll()
    assert (pod.full("tenant", "requests"), pod.read("breakers", state="open")) == (0, 0)


async def test_what_was_told_stays_while_the_store_is_away() -> None:
    """An outage is no recovery of a breaker."""
    pod = Pod(a=LimitUsage(open=3, half_open=0, forced=0, used=(10, 0, 0)))
    await pod.measure.poll()
    pod.store.away = True
    with pytest.raises(StoreError):
        await pod.measure.poll()
    assert (pod.full("tenant", "requests"), pod.read("breakers", state="open")) == (1, 3)


async def test_many_tenants_are_looked_at_in_parts() -> None:
    """So that neither the pod nor Redis is held up."""
    pod = Pod(**{f"t{i}": LimitUsage(open=1, half_open=0, forced=0, used=(0, 0, 0)) for i in range(3 * AT_ONCE)})
    await pod.measure.poll()
    assert pod.store.max_at_once == AT_ONCE
    assert pod.read("breakers", state="open") == 3 * AT_ONCE
