"""Charges of every kind in one row, with every option, for every owner: held against a model that only adds."""

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted, LimitHit, NoCandidate, Outcome
from router.domain.policy.limits import limit
from router.domain.policy.model import AUDIT_QUOTA_ID, Limit
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.store.scripts import layouts
from tests.store import layout_reader
from tests.store.harness import MINUTE, Ask, Store, policy, request

KINDS = ("sliding", "log", "concurrency")
LONGER_THAN_ALL = 30 * MINUTE


class Kind(NamedTuple):
    """A kind of limit: how it counts, for whom, whether it only reports, and how much it admits."""

    counts: str
    scope: Scope
    shadow: bool
    bound: int

    def limit(self, number: int) -> Limit:
        """Such a limit, with an id of its own."""
        resource = Resource.CONCURRENCY if self.counts == "concurrency" else Resource.REQUESTS
        algorithm = Algorithm.LOG if self.counts == "log" else Algorithm.SLIDING
        window = 0 if self.counts == "concurrency" else MINUTE
        found = limit(f"limit-{number}", self.scope, resource, self.bound, window, algorithm=algorithm)
        return replace(found, shadow=self.shadow)


OF_REQUEST = some.builds(
    Kind,
    some.sampled_from(KINDS),
    some.sampled_from((Scope.TENANT, Scope.USER, Scope.POLICY)),
    some.booleans(),
    some.integers(1, 4),
)
OF_PROVIDER = some.builds(
    Kind, some.sampled_from(("sliding", "log")), some.just(Scope.PROVIDER), some.booleans(), some.integers(1, 4)
)
# Who asks; None: a while in which everything that was charged leaves.
STEPS = some.lists(some.sampled_from(("ann", "bob", None)), min_size=4, max_size=14)


class Model:
    """What each limit of one tenant has counted; the quota of audit records, if there is one, is the last of `own`."""

    def __init__(self, own: list[Limit], provider: list[Limit]) -> None:
        self.own, self.provider = own, provider
        self.used: Counter[tuple[str, str]] = Counter()

    def refusing(self, limits: list[Limit], user: str) -> list[int]:
        """Indexes of the limits that have no room for one more."""
        return [i for i, x in enumerate(limits) if self.used[x.id, self.owner(x, user)] >= x.limit]

    @staticmethod
    def owner(x: Limit, user: str) -> str:
        """Who shares the counter: only users differ here."""
        return user if x.scope is Scope.USER else ""

    def decide(self, user: str) -> tuple[type[Outcome], bool, set[int]]:
        """What a request comes to, whether it is recorded, and which limits report or refuse."""
        own, provider = self.refusing(self.own, user), self.refusing(self.provider, user)
        enforced = [i for i in own if not self.own[i].shadow]
        if enforced:
            return LimitHit, self.record(), set(enforced)
        if any(not self.provider[i].shadow for i in provider):
            recorded = self.record()
            return (NoCandidate if recorded else LimitHit), recorded, {len(self.own) - 1}
        for x in (*self.own, *self.provider):
            self.used[x.id, self.owner(x, user)] += 1
        return Admitted, True, {*own, *(len(self.own) + i for i in provider)}

    def record(self) -> bool:
        """Charges the quota with a refusal: it admits one more than its limit, so that the log shows where it ends."""
        if not self.own or self.own[-1].id != AUDIT_QUOTA_ID:
            return True
        counted = (AUDIT_QUOTA_ID, "")
        if self.used[counted] > self.own[-1].limit:
            return False
        self.used[counted] += 1
        return True


@settings(max_examples=250, deadline=None)
@given(
    own=some.lists(OF_REQUEST, max_size=7),
    provider=some.lists(OF_PROVIDER, max_size=3),
    quota=some.one_of(some.none(), some.integers(1, 6)),
    steps=STEPS,
)
def test_all_kinds_of_charges_in_one_row(
    store_at_once: Store, own: list[Kind], provider: list[Kind], quota: int | None, steps: list[str | None]
) -> None:
    """Sliding, log and concurrency limits, enforced and in shadow, of four scopes, with and without a quota of records:
    each request is admitted or refused as the model says, by a limit that has no room, and shadows report alike."""
    limits = [k.limit(n) for n, k in enumerate(own)]
    of_provider = [k.limit(100 + n) for n, k in enumerate(provider)]
    if quota is not None:
        limits.append(limit(AUDIT_QUOTA_ID, Scope.TENANT, Resource.REQUESTS, quota, MINUTE))
    store, tenant, model = store_at_once, store_at_once.tenant(), Model(limits, of_provider)
    p = policy("a", limits=[*of_provider, *limits])
    for n, user in enumerate(steps):
        if user is None:
            store.now += LONGER_THAN_ALL
            model.used.clear()
            continue
        outcome = store.one(request(tenant, f"r{n}", user=user), p)
        expected, recorded, charges = model.decide(user)
        assert isinstance(outcome, expected), (outcome, expected)
        if isinstance(outcome, LimitHit):
            assert outcome.recorded is recorded
            assert outcome.charge in charges or not recorded
        if isinstance(outcome, Admitted):
            assert set(outcome.shadow) == charges


@pytest.mark.parametrize("kind", [layouts.KIND_SLIDING, layouts.KIND_LOG, layouts.KIND_CONCURRENCY])
@pytest.mark.parametrize("bit", range(2, 8))
def test_an_option_without_a_meaning_changes_no_kind(store: Store, kind: int, bit: int) -> None:
    """A bit that no version uses yet may be set on any charge: it is counted, refused and reported as before."""
    p = policy("a", limits=[Kind(KINDS[kind], Scope.TENANT, False, 1).limit(1)])
    tenant = store.tenant()
    found: list[Outcome] = []
    for name in "rs":
        batch = store.batch([Ask(request(tenant, name), p)])
        row = bytearray(batch.rows[0])
        _, at = layout_reader.fields(layouts.DECIDE_ROW, bytes(row))
        assert row[at + layouts.CHARGE.at("kind")] == kind
        row[at + layouts.CHARGE.at("options")] |= 1 << bit
        replies = store.call(store.decide_script, list(batch.index), [store.header(), bytes(row)])
        found += store.read(batch, replies)
    assert [type(o) for o in found] == [Admitted, LimitHit]
