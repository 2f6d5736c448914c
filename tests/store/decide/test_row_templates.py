"""Rows that are packed by templates have the bytes of rows that are packed field by field."""

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted, Outcome
from router.domain.decide.plan import Plan, plan
from router.domain.decide.request import Constraints, DecideRequest, Options, Step
from router.domain.gate import ALL_FEATURES, BASELINE
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Fallback, Limit, Policy, Provider, Sticky, StoredPolicy, provider
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.row_parts import PolicyPart
from router.store.decide.rows import RowPacker
from router.store.keys import Keys
from tests.store.harness import Store
from tests.store.harness import policy as policy_of
from tests.store.harness import request as request_of

KEYS = Keys("t")
FAR_MS = 1e12


class FieldByField(RowPacker):
    """A packer without templates."""

    def __init__(self) -> None:
        super().__init__(KEYS, bytes, script="s")
        parts = self._parts
        of = parts.of

        def without_templates(stored: StoredPolicy) -> PolicyPart:
            return replace(of(stored), charges=None, reserved=None)

        parts.of = without_templates  # type: ignore[method-assign]


def _limit(number: int, scope: Scope, resource: Resource, *, log: bool, shadow: bool, estimate: int) -> Limit:
    window_ms = 0 if resource is Resource.CONCURRENCY else 60_000 + number
    made = limit(f"limit-{number}", scope, resource, 1_000 + number, window_ms)
    log = log and resource is not Resource.CONCURRENCY
    algorithm = Algorithm.LOG if log else Algorithm.SLIDING
    return replace(made, algorithm=algorithm, shadow=shadow, default_estimate=estimate)


@st.composite
def limits(draw: Any, scopes: list[Scope]) -> tuple[Limit, ...]:
    """Up to five limits of any kind."""
    kinds = draw(
        st.lists(
            st.tuples(
                st.sampled_from(scopes),
                st.sampled_from(list(Resource)),
                st.booleans(),
                st.booleans(),
                st.sampled_from([0, 1, 127, 128, 65_536, 1 << 31]),
            ),
            max_size=5,
        )
    )
    return tuple(_limit(n, s, r, log=log, shadow=shadow, estimate=e) for n, (s, r, log, shadow, e) in enumerate(kinds))


@st.composite
def policies(draw: Any) -> StoredPolicy:
    """A policy; half of them have only limits of the tenant, as most do."""
    scopes = draw(st.sampled_from([[Scope.TENANT], [Scope.TENANT, Scope.POLICY], list(Scope)]))
    bound = draw(st.sampled_from([0, 0, 3]))
    pool: list[Provider] = [
        provider(f"p{i}", weight, expected_latency_ms=200 * i, expected_cost_microusd=1_000 * i, max_concurrency=bound)
        for i, weight in enumerate(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    ]
    policy = Policy(
        tuple(pool),
        sticky=draw(st.sampled_from([None, Sticky()])),
        limits=draw(limits(scopes)),
        breaker=draw(st.sampled_from([None, Breaker()])),
        fallbacks=draw(st.sampled_from([(), (Fallback("p0", ("5xx",)),)])),
    )
    return StoredPolicy(draw(st.sampled_from(["default", "p", "x" * 200])), draw(st.integers(1, 1 << 20)), "h", policy)


@st.composite
def requests(draw: Any, policy_id: str) -> DecideRequest:
    """A request with and without everything that a row may hold."""
    options = Options(
        estimate_tokens=draw(st.sampled_from([None, None, 0, 7, 200, 1 << 20])),
        estimate_cost_microusd=draw(st.sampled_from([None, None, 1, 90_000])),
        deadline_ms=draw(st.sampled_from([None, None, 1_234])),
        explain=draw(st.sampled_from([False, False, True])),
        meter=draw(st.sampled_from([False, False, True])),
    )
    more: dict[str, Any] = {}
    if draw(st.booleans()):
        more["context"] = {"session_id": draw(st.sampled_from(["s" * 20, "é" * 200, "session-1"]))}
    if draw(st.booleans()):
        more["constraints"] = Constraints(max_latency_ms=300)
    if draw(st.booleans()):
        more["step"] = Step("timeout", "p0", 1)
    return DecideRequest(
        "acme",
        draw(st.text(min_size=1, max_size=20)),
        policy_id,
        "chat",
        bytes(range(8)),
        user_id=draw(st.sampled_from([None, "u-1"])),
        idempotency_key=draw(st.sampled_from([None, "key"])),
        message_id=draw(st.sampled_from([None, "m-1"])),
        push_assignment=draw(st.sampled_from([False, False, True])),
        options=options,
        **more,
    )


def _ignored(_outcome: Outcome, _stamp: bytes) -> None:
    """No caller waits."""


def _packed(packer: RowPacker, rows: list[tuple[DecideRequest, Plan]], job: bytes | None, attempt: int) -> Batch:
    batch = Batch()
    keys = KEYS.tenant("acme")
    for nonce, (request, planned) in enumerate(rows):
        row = WaitingRow(request, planned, keys, job if request.push_assignment else None, _ignored, bytes(16), FAR_MS)
        row.attempt = attempt
        packer.add(batch, row, nonce, FAR_MS)
    return batch


@settings(deadline=None)
@given(data=st.data())
def test_templates_pack_the_same_bytes(data: st.DataObject) -> None:
    """Any policy and any requests, several in one batch: rows, keys and sizes are those without templates."""
    stored = data.draw(policies())
    asked = data.draw(st.lists(requests(stored.policy_id), min_size=1, max_size=3))
    features = data.draw(st.sampled_from([ALL_FEATURES, ALL_FEATURES, BASELINE]))
    unfinished = data.draw(st.sampled_from([False, False, True]))
    attempt = data.draw(st.sampled_from([1, 1, 1, 2]))
    rows = [(request, replace(plan(request, stored, features), unfinished=unfinished)) for request in asked]
    with_templates = _packed(RowPacker(KEYS, bytes, script="s"), rows, b"{}", attempt)
    without = _packed(FieldByField(), rows, b"{}", attempt)
    assert with_templates.rows == without.rows
    assert with_templates.index == without.index
    assert (with_templates.size, with_templates.jobs) == (without.size, without.jobs)


@pytest.mark.parametrize("scope", [Scope.TENANT, Scope.POLICY])
def test_usual_policies_have_templates(scope: Scope) -> None:
    """Limits of the tenant or the policy on requests and tokens: what the other test compares is really used."""
    limits = (limit("r", scope, Resource.REQUESTS, 10, 60_000), limit("t", scope, Resource.TOKENS, 10, 60_000))
    stored = StoredPolicy("default", 1, "h", Policy((provider("a"),), limits=limits))
    part = RowPacker(KEYS, os.urandom)._parts.of(stored)
    assert part.reserved is not None
    assert (part.charges is not None) == (scope is Scope.TENANT)


def test_a_limit_that_looks_like_the_gap_is_packed_field_by_field() -> None:
    """An entry that holds the bytes of the gap would cut a template in the wrong place."""
    unlucky = replace(limit("t", Scope.TENANT, Resource.TOKENS, 10, 60_000), entry=b"..\xce\x8a\x5a\x5a\x5a.")
    stored = StoredPolicy("default", 1, "h", Policy((provider("a"),), limits=(unlucky,)))
    assert RowPacker(KEYS, os.urandom)._parts.of(stored).reserved is None


def test_estimates_of_one_call_do_not_mix(store_at_once: Store) -> None:
    """Rows of one policy share its template; each has its own units."""
    tenant = store_at_once.tenant()
    tokens = limit("t", Scope.TENANT, Resource.TOKENS, 1_000, 60_000)
    stored = policy_of("a", limits=[tokens])
    for n, estimate in enumerate((10, 300, 70_000, 0)):
        wanted = request_of(tenant, f"r{n}", options=Options(estimate_tokens=estimate))
        outcome = store_at_once.one(wanted, stored)
        assert isinstance(outcome, Admitted) == (estimate < 1_000)
