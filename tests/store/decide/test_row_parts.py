"""What is packed once: it lives as long as its policy, and very many candidates do not make an audit record long."""

import gc
from typing import Any

from router.domain.decide.outcome import Admitted
from router.domain.decide.plan import plan
from router.domain.decide.request import Options
from router.domain.policy.model import provider
from router.store.decide.row_parts import PolicyParts
from router.store.decisions import decide_script
from tests.store.harness import Store, policy, request


def test_parts_go_with_their_policy() -> None:
    """A pod that reloads its policies for days keeps no packed form of the old ones."""
    parts = PolicyParts("")
    stored = policy("a", "b")
    part = parts.of(stored)
    assert parts.of(stored) is part
    parts.order(part, plan(request("t", "r"), stored))
    assert len(parts._parts) == 1
    del stored
    gc.collect()
    assert len(parts._parts) == 0


def test_an_order_is_packed_once() -> None:
    """The same candidates in the same order have one part, others their own."""
    stored = policy(provider("a", 50), provider("b", 50))
    parts = PolicyParts("")
    part = parts.of(stored)
    orders = [parts.order(part, plan(request("t", f"r{i}"), stored)) for i in range(50)]
    assert {id(o) for o in orders} == {id(o) for o in part.orders.values()}
    assert len(part.orders) == 2


_LONG = Options(deadline_ms=600_000)
"""No lease ends before the test, however slow the machine is."""


def test_a_record_of_very_many_candidates_is_short(store: Store) -> None:
    """128 providers with long names: below 1 KB, the chosen one named, the others counted."""
    tenant = store.tenant()
    names = [f"provider-with-a-long-name-{i:03d}" for i in range(128)]
    p = policy(*(provider(n, priority=128 - i, max_concurrency=1) for i, n in enumerate(names)))
    for i in range(100):
        assert isinstance(store.one(request(tenant, f"r{i}", options=_LONG), p), Admitted)
    rows: Any = store.client.xrange(store.of(tenant).audit)
    assert max(len(fields[b"r"]) for _, fields in rows) < 1_024
    last = store.audit(tenant)[-1]
    assert last.details["provider_id"] == names[99]
    assert last.details["candidates_not_named"] == 128 - 13


def test_a_record_says_what_was_promised_and_by_which_script(store: Store) -> None:
    """What replaying a decision needs: the chosen one's figures, the script, whether it was fresh."""
    tenant = store.tenant()
    store.one(request(tenant, "r"), policy(provider("a", expected_latency_ms=120, expected_cost_microusd=30)))
    (entry,) = store.audit(tenant)
    told = {k: entry.details[k] for k in ("expected_latency_ms", "expected_cost_microusd", "idempotency", "degraded")}
    assert told == {
        "expected_latency_ms": 120,
        "expected_cost_microusd": 30,
        "idempotency": "fresh",
        "degraded": False,
    }
    assert entry.details["script"] == store.decide_script.version
    assert decide_script().version != ""
