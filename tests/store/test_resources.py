"""Every kind of limit alike: N units move its counter by N, a result gives back what was not used, and no more."""

from itertools import product

import pytest

from router.domain.decide.outcome import Admitted, LimitHit
from router.domain.decide.request import Options
from router.domain.ids import name_in
from router.domain.policy.limits import limit
from router.domain.policy.model import Limit
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.domain.tasks.result import BreakerVerdict, ExecResult, ResultStatus
from router.domain.tasks.task import Moved
from router.store.packing import remembered
from router.usecases.tasks.moves import split_reservations
from tests.store.harness import MINUTE, Store, policy, request, undispatched

MAXIMUM, RESERVED, USED = 100, 30, 12
HELD = {
    Resource.REQUESTS: (1, 1),
    Resource.TOKENS: (RESERVED, USED),
    Resource.COST: (RESERVED, USED),
    Resource.CONCURRENCY: (1, 0),
}
"""What a decision takes, and what is taken still once its result has come."""
CASES = [
    (resource, scope, algorithm)
    for resource, scope, algorithm in product(Resource, (Scope.TENANT, Scope.USER, Scope.POLICY), Algorithm)
    if (resource, algorithm) != (Resource.CONCURRENCY, Algorithm.LOG)
]


def estimates(units: int = RESERVED) -> Options:
    """Estimates of so many tokens and micro-USD, and to be told what is left."""
    return Options(estimate_tokens=units, estimate_cost_microusd=units, explain=True)


def left(store: Store, tenant: str, of: Limit) -> float:
    """The room of the limit, as a request is told that takes nothing."""
    previewed = store.preview(request(tenant, "look", user="u", options=estimates(0)), policy("a", limits=[of]))
    assert isinstance(previewed, Admitted | LimitHit)
    (room,) = previewed.seen.left
    return room


@pytest.mark.parametrize(("resource", "scope", "algorithm"), CASES)
def test_units_are_taken_and_given_back(store: Store, resource: Resource, scope: Scope, algorithm: Algorithm) -> None:
    """From the estimate to the result, through the remembered answer; a second result gives nothing more."""
    of = limit("l", scope, resource, MAXIMUM, 0 if resource is Resource.CONCURRENCY else MINUTE, algorithm=algorithm)
    tenant, stored = store.tenant(), policy("a", limits=[of])
    assert left(store, tenant, of) == MAXIMUM
    made = store.one(request(tenant, "r", user="u", options=estimates()), stored)
    assert isinstance(made, Admitted)
    taken, kept_units = HELD[resource]
    assert left(store, tenant, of) == MAXIMUM - taken
    keys = store.of(tenant)
    name = name_in(made.decision_id)
    kept = remembered(store.value(keys.idem(name)) or b"", keys.partition, name)
    result = ExecResult(ResultStatus.SUCCESS, tokens=USED, cost_microusd=USED)
    corrections, leases = split_reservations(kept.reserved, "a", kept.expected_cost_microusd, result)
    move = undispatched(
        *(tenant, made.decision_id, BreakerVerdict.NEITHER),
        charged_ms=kept.charged_ms,
        corrections=corrections,
        leases=leases,
    )
    first, _ = store.settle(move, move)
    assert isinstance(first, Moved)
    assert left(store, tenant, of) == MAXIMUM - kept_units
