"""Quotas of decisions and audit records as limits, and the refusals that are counted instead of recorded."""

from collections.abc import Sequence
from typing import cast

import pytest
from msgspec import Struct, msgpack
from prometheus_client import CollectorRegistry

from router.domain.audit.records import DecisionFeatures
from router.domain.decide.plan import plan
from router.domain.policy.limits import limit
from router.domain.policy.model import StoredPolicy, TenantPolicies
from router.domain.policy.vocabulary import OnStoreError, Resource, Scope
from router.domain.tasks.task import Move, MoveOutcome
from router.errors import StoreUnavailable
from router.ports.tasks import TaskStore
from router.telemetry import Telemetry
from router.usecases.audit.unrecorded_refusals import UnrecordedRefusals
from router.usecases.policies.decision_quotas import DecisionQuotas, WithQuotas
from tests.store.harness import policy, request

ALLOW, DENY = OnStoreError.ALLOW, OnStoreError.DENY
PROVIDERS = limit("own", Scope.PROVIDER, Resource.REQUESTS, 5, 1_000)


class One(Struct):
    """A loader of one policy."""

    stored: StoredPolicy

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """It, for whoever has a name."""
        return TenantPolicies(tenant_id, 1, bytes(8), {"default": self.stored}) if tenant_id else None


async def loaded(stored: StoredPolicy, quotas: DecisionQuotas, default: OnStoreError = DENY) -> StoredPolicy:
    """The policy with its quotas."""
    found = await WithQuotas(One(stored), quotas, default).load("acme")
    assert found is not None
    return found.policies["default"]


async def test_the_quota_of_records_is_the_last_charge() -> None:
    """Where the script looks for it; a provider's limits are no charges of the row."""
    stored = await loaded(policy("a", limits=[PROVIDERS]), DecisionQuotas(100, 7))
    charges = plan(request("acme", "r"), stored).charges
    assert [(c.limit.id, c.limit.limit, c.limit.window_ms) for c in charges] == [
        ("~requests", 100, 86_400_000),
        ("~audit", 70, 10_000),
    ]


async def test_without_quotas_a_policy_is_as_it_is() -> None:
    """The very same object: it costs nothing."""
    stored = policy("a", limits=[PROVIDERS])
    assert await loaded(stored, DecisionQuotas()) is stored
    assert await WithQuotas(One(stored), DecisionQuotas(1, 1), DENY).load("") is None


@pytest.mark.parametrize(
    ("own", "default", "otherwise"),
    [(None, DENY, DENY), (None, ALLOW, ALLOW), (ALLOW, DENY, ALLOW), (DENY, ALLOW, ALLOW)],
)
async def test_a_quota_of_records_does_not_decide_what_an_outage_means(
    own: OnStoreError | None, default: OnStoreError, otherwise: OnStoreError
) -> None:
    """The policy's own limits do; without one, the fleet's setting, as if there were no quota."""
    limits = [] if own is None else [limit("own", Scope.TENANT, Resource.REQUESTS, 5, 1_000, on_store_error=own)]
    stored = await loaded(policy("a", limits=limits), DecisionQuotas(audit_rate=1), default)
    assert stored.policy.limits[-1].on_store_error is otherwise


class Notes:
    """The part of a `TaskStore` that takes notes; `away`: it does not answer."""

    def __init__(self) -> None:
        self.away = True
        self.told: list[tuple[str, int, str]] = []

    async def move(self, moves: Sequence[Move], *, replicated: bool = True) -> list[MoveOutcome]:
        """Remember tenant, times and first request."""
        if self.away:
            raise StoreUnavailable("away")
        for move in moves:
            features = msgpack.decode(move.features, type=DecisionFeatures)
            self.told.append((move.tenant_id, features.times, features.request_id))
        return []


async def test_counts_wait_for_the_store() -> None:
    """What could not be told is told later, once, together with what came since, by the first of all."""
    notes = Notes()
    unrecorded = UnrecordedRefusals(cast(TaskStore, notes), Telemetry(CollectorRegistry()))
    made = plan(request("acme", "r"), policy("a"))
    for n in range(3):
        unrecorded.refused(request("acme", f"r{n}"), made)
    await unrecorded.flush()
    unrecorded.refused(request("acme", "r3"), made)
    for n in range(300):
        unrecorded.refused(request(f"t{n}", "x"), made)
    notes.away = False
    await unrecorded.flush()
    await unrecorded.flush()
    assert notes.told[0] == ("acme", 4, "r0")
    assert len(notes.told) == 301
