"""Rows that only look, rows that claim, what a row saw, and the index of messages."""

from typing import Any

import orjson
import pytest
from redis import Redis

from router.domain.decide.decision import Verdict
from router.domain.decide.outcome import Admitted, Busy, Conflict, LimitHit, NoCandidate, Observations, Replay
from router.domain.decide.request import DecideRequest, Options
from router.domain.ids import name_in
from router.domain.json import JsonObject
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Sticky, provider, provider_entry
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.store.decide.rows import MessageIndex
from router.wire.request.decide import decode
from tests.store.harness import MINUTE, Store, policy, request, undispatched

ONE, OTHER = b"1" * 16, b"2" * 16
TWO_A_MINUTE = limit("two", Scope.TENANT, Resource.REQUESTS, 2, MINUTE)
EXPLAIN = Options(explain=True)


def test_a_look_is_answered_like_a_decide(store: Store) -> None:
    """Fresh, then replayed, then a conflict; and the limit that would refuse is named."""
    tenant, p = store.tenant(), policy("a", limits=[TWO_A_MINUTE])
    assert isinstance(store.preview(request(tenant, "r"), p), Admitted)
    assert isinstance(store.one(request(tenant, "r"), p), Admitted)
    assert isinstance(store.preview(request(tenant, "r"), p), Replay)
    assert store.preview(request(tenant, "r", same_as="another"), p) == Conflict()
    store.one(request(tenant, "s"), p)
    refused = store.preview(request(tenant, "t"), p)
    assert isinstance(refused, LimitHit)
    assert refused.seen == Observations(left=(0,))


def test_a_look_is_not_audited(store: Store) -> None:
    """Neither what would be admitted nor what would be refused."""
    tenant = store.tenant()
    store.preview(request(tenant, "r"), policy("a"))
    store.preview(request(tenant, "r"), policy())
    assert store.audit(tenant) == []


def test_a_claim_keeps_other_looks_away(store: Store) -> None:
    """For so long as it says; its owner may look again."""
    wanted, p = request(store.tenant(), "r"), policy("a")
    assert isinstance(store.preview(wanted, p, claim_ms=60_000, decision=ONE), Admitted)
    busy = store.preview(wanted, p, claim_ms=60_000, decision=OTHER)
    assert isinstance(busy, Busy)
    assert 59_000 < busy.left_ms <= 60_000
    assert isinstance(store.preview(wanted, p, claim_ms=60_000, decision=ONE), Admitted)


def test_a_claim_that_has_gone_is_free(store: Store) -> None:
    """Whoever looks next has it."""
    wanted, p = request(store.tenant(), "r"), policy("a")
    store.preview(wanted, p, claim_ms=60_000, decision=ONE)
    store.client.delete(store.of(wanted.tenant_id).claim(name_in(ONE)))
    store.client.delete(*store.client.scan_iter(store.keys.schema.encode() + b"*:claim"))
    assert isinstance(store.preview(wanted, p, claim_ms=60_000, decision=OTHER), Admitted)
    assert isinstance(store.preview(wanted, p, claim_ms=60_000, decision=ONE), Busy)


def test_who_would_be_refused_claims_nothing(store: Store) -> None:
    """The claim is the last thing that a look does."""
    tenant = store.tenant()
    store.preview(request(tenant, "r"), policy(), claim_ms=60_000, decision=ONE)
    assert isinstance(store.preview(request(tenant, "r"), policy("a"), claim_ms=60_000, decision=OTHER), Admitted)


def test_a_claim_keeps_no_decide_away(store: Store) -> None:
    """Who decides is whoever decides first; and then a look replays, claimed or not."""
    wanted, p = request(store.tenant(), "r"), policy("a")
    store.preview(wanted, p, claim_ms=60_000, decision=ONE)
    assert isinstance(store.one(wanted, p), Admitted)
    assert isinstance(store.preview(wanted, p, claim_ms=60_000, decision=OTHER), Replay)


def test_who_explains_is_told_what_is_left(store: Store) -> None:
    """Units before this row, of each limit in the plan's order; others are told nothing."""
    tenant, p = store.tenant(), policy("a", limits=[TWO_A_MINUTE, limit("t", Scope.TENANT, Resource.TOKENS, 9, MINUTE)])
    told = Options(explain=True, estimate_tokens=4)
    first = store.one(request(tenant, "1", options=told), p)
    second = store.one(request(tenant, "2", options=told), p)
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    assert (first.seen, second.seen) == (Observations(left=(2, 9)), Observations(left=(1, 5)))
    refused = store.one(request(tenant, "3", options=told), p)
    assert isinstance(refused, LimitHit)
    assert refused.seen == Observations(left=(0, 1))
    silent = store.one(request(tenant, "4"), policy("a"))
    assert isinstance(silent, Admitted)
    assert silent.seen == Observations()


def test_who_explains_is_told_until_when(store: Store) -> None:
    """A breaker's candidate comes back when it is due; a pin that was left is named."""
    tenant, breaker = store.tenant(), Breaker(failure_threshold=1, timeout_ms=30_000)
    p = policy("a", "b", breaker=breaker, sticky=Sticky())
    made = store.one(request(tenant, "1", session="s"), p)
    assert isinstance(made, Admitted)
    store.settle(undispatched(tenant, made.decision_id, BreakerVerdict.FAILURE, breaker, provider_entry("a")))
    store.now += 1_000
    moved = store.one(request(tenant, "2", session="s", options=EXPLAIN), p)
    assert isinstance(moved, Admitted)
    assert moved.verdicts == bytes((Verdict.BREAKER_OPEN, Verdict.CHOSEN))
    assert moved.seen == Observations((), (29_000, None), provider_entry("a"))
    entry = store.audit(tenant)[-1]
    assert entry.details["pinned_to"] == "a"
    assert entry.details["candidates"] == [
        {"provider_id": "a", "verdict": "breaker_open", "fit_in_ms": 29_000},
        {"provider_id": "b", "verdict": "chosen"},
    ]


def test_nobody_is_fit_and_the_caller_knows_until_when(store: Store) -> None:
    """The same figures come with the refusal."""
    tenant, p = store.tenant(), policy(provider("a", max_concurrency=1))
    store.one(request(tenant, "1", options=Options(deadline_ms=5_000)), p)
    refused = store.one(request(tenant, "2", options=EXPLAIN), p)
    assert refused == NoCandidate(bytes((Verdict.CONCURRENCY_FULL,)), 5_000, Observations((), (5_000,)))


def test_what_a_providers_own_limit_had_left(store: Store) -> None:
    """All of the chosen one's, and the one that turned a candidate away: told at once and in the log."""
    tenant = store.tenant()
    own = (("few", Resource.REQUESTS, 5), ("tokens", Resource.TOKENS, 100))
    p = policy("a", limits=[limit(name, Scope.PROVIDER, what, maximum, MINUTE) for name, what, maximum in own])
    made = store.one(request(tenant, "1", options=Options(estimate_tokens=70, explain=True)), p)
    assert isinstance(made, Admitted)
    assert made.seen.own_left == {0: {0: 5, 1: 100}}
    refused = store.one(request(tenant, "2", options=Options(estimate_tokens=31, explain=True)), p)
    assert isinstance(refused, NoCandidate)
    assert refused.seen.own_left == {0: {1: 30}}
    logged: Any = [entry.details["candidates"] for entry in store.audit(tenant)]
    few, tokens, left = ({"limit_id": x, "left_before": n} for x, n in (("few", 5), ("tokens", 100), ("tokens", 30)))
    assert [(line["verdict"], line["limits"]) for (line,) in logged] == [
        ("chosen", [few, tokens]),
        ("provider_limit", [left]),
    ]


def test_the_log_has_what_was_left(store: Store) -> None:
    """Of every limit, before the decision; made or refused, explained or not."""
    tenant, p = store.tenant(), policy("a", limits=[TWO_A_MINUTE])
    for number in "123":
        store.one(request(tenant, number), p)
    left = [entry.details["limits"] for entry in store.audit(tenant)]
    assert left == [[{"limit_id": "two", "left_before": n}] for n in (2, 1, 0)]


def index_of(store: Store, tenant: str) -> bytes | None:
    """The idempotency name that the index has for the tenant's message m."""
    found: Any = store.client.hget(store.of(tenant).message("m"), tenant)
    return None if found is None else bytes(found)


def test_a_message_leads_to_its_decision(store: Store) -> None:
    """The index holds name and tenant, when the message's id is not the identity."""
    tenant = store.tenant()
    made = store.one(request(tenant, "r", message_id="m"), policy("a"))
    assert isinstance(made, Admitted)
    assert index_of(store, tenant) == name_in(made.decision_id)


IDENTITY, OTHER_ID, NO_ID = ("all",), ("all", "needed"), ()
TASK: dict[str, Any] = {"task": {"type": "chat"}, "message_id": "m"}
STEP: dict[str, Any] = {"context": {"status": "503", "current_provider": "a"}}
SHAPES: dict[str, tuple[JsonObject, tuple[str, ...]]] = {
    # A body, and the settings under which its decision is indexed.
    "task, identity": ({**TASK}, NO_ID),
    "task, request_id": ({**TASK, "request_id": "r"}, OTHER_ID),
    "message, identity": ({"message": {"message_id": "m"}}, IDENTITY),
    "message, same request_id": ({"message": {"message_id": "m"}, "request_id": "m"}, IDENTITY),
    "message beside": ({"message": {}, "message_id": "m"}, IDENTITY),
    "message, request_id": ({"message": {"message_id": "m"}, "request_id": "r"}, OTHER_ID),
    "message, key": ({"message": {"message_id": "m", "idempotency_key": "k"}}, OTHER_ID),
    "message, step": ({"message": {"message_id": "m"}, **STEP}, IDENTITY),
    "message without id": ({"message": {}, "request_id": "r"}, NO_ID),
    "input, identity": ({"input": "hi", "message_id": "m"}, IDENTITY),
    "input, request_id": ({"input": "hi", "message_id": "m", "request_id": "r"}, OTHER_ID),
}


@pytest.mark.parametrize("setting", ["all", "needed", "off"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_that_are_indexed(single: Redis, shape: str, setting: MessageIndex) -> None:
    """ROUTER_MESSAGE_INDEX: every message and input, those that another id names, or none."""
    body, settings = SHAPES[shape]
    store = Store(single, message_index=setting)
    tenant = store.tenant()
    asked = decode(orjson.dumps({"version": "1", "tenant_id": tenant} | body), None, None)
    assert isinstance(asked, DecideRequest), asked
    made = store.one(asked, policy("a", "b"))
    assert isinstance(made, Admitted)
    assert index_of(store, tenant) == (name_in(made.decision_id) if setting in settings else None)


def test_a_message_that_was_refused_is_not_indexed(store: Store) -> None:
    """There is no decision to find."""
    tenant = store.tenant()
    store.one(request(tenant, "r", message_id="m"), policy())
    assert index_of(store, tenant) is None


def test_a_message_of_two_tenants_is_each_ones(store: Store) -> None:
    """Of one partition as of several: neither takes the other's place."""
    one = store.tenant()
    other = store.tenant()
    while store.of(other).partition != store.of(one).partition:
        other = store.tenant()
    made = [store.one(request(t, "r", message_id="m"), policy("a")) for t in (one, other)]
    names = [name_in(m.decision_id) for m in made if isinstance(m, Admitted)]
    assert [index_of(store, t) for t in (one, other)] == names


def test_an_index_goes_with_the_answers(store: Store) -> None:
    """It lives as long as the last answer that it leads to."""
    tenant = store.tenant()
    store.one(request(tenant, "r", message_id="m"), policy("a"))
    ttl: Any = store.client.pttl(store.of(tenant).message("m"))
    assert 86_300_000 < ttl <= 86_400_000
