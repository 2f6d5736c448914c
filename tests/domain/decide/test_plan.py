"""Request and policy → plan: the order of candidates, charges, pins, constraints, names."""

from collections import Counter

import pytest
from msgspec.structs import replace

from router.domain.decide.decision import Reason, Verdict
from router.domain.decide.figures import Live, Snapshot
from router.domain.decide.plan import ANONYMOUS, Deadlines, Plan, has_empty_session, plan
from router.domain.decide.request import Constraints, DecideRequest, Options, Step
from router.domain.gate import Features
from router.domain.json import JsonValue
from router.domain.policy.limits import limit
from router.domain.policy.model import Fallback, Limit, Policy, Provider, Sticky, StoredPolicy, provider, provider_entry
from router.domain.policy.vocabulary import Resource, Scope, Selection

MINUTE = 60_000


def stored(*providers: Provider, **more: object) -> StoredPolicy:
    """A policy of these providers."""
    return StoredPolicy("default", 1, "0" * 16, Policy(providers, **more))  # type: ignore[arg-type]


def ask(request_id: str = "r", **more: object) -> DecideRequest:
    """A request of one tenant."""
    return DecideRequest("acme", request_id, "default", "chat", bytes(8), **more)  # type: ignore[arg-type]


def names(planned: Plan) -> list[str]:
    """Candidates in their order."""
    return [c.provider.name for c in planned.candidates]


def firsts(policy: StoredPolicy, count: int) -> list[str]:
    """Who is preferred by each of so many requests."""
    return [plan(ask(f"request-{i}"), policy).candidates[0].provider.name for i in range(count)]


# Order


def test_the_same_inputs_plan_the_same() -> None:
    """No clock and no dice: two plans of one request are equal."""
    policy = stored(*(provider(n) for n in "abcdef"), sticky=Sticky())
    wanted = ask(context={"session_id": "s"})
    assert plan(wanted, policy) == plan(wanted, policy)


def test_the_order_of_the_document_does_not_matter() -> None:
    """Providers written in another order are preferred alike."""
    policy = stored(*(provider(n) for n in "abcdef"))
    turned = stored(*(provider(n) for n in "fedcba"))
    assert all(names(plan(ask(f"{i}"), policy)) == names(plan(ask(f"{i}"), turned)) for i in range(200))


@pytest.mark.heavy
def test_weights_hold_within_a_point() -> None:
    """Over 100,000 requests each provider's share is its weight's, within one percentage point."""
    weights = {"a": 50, "b": 30, "c": 15, "d": 5}
    counts = Counter(firsts(stored(*(provider(n, w) for n, w in weights.items())), 100_000))
    for name, weight in weights.items():
        assert abs(counts[name] / 1000 - weight) < 1


@pytest.mark.heavy
def test_removing_a_provider_moves_only_its_share() -> None:
    """Every request that was elsewhere stays there, and the removed share spreads over the others by their weights."""
    weights = {"a": 40, "b": 30, "c": 20, "d": 10}
    all_four = stored(*(provider(n, w) for n, w in weights.items()))
    without_c = stored(*(provider(n, w) for n, w in weights.items() if n != "c"))
    before, after = firsts(all_four, 40_000), firsts(without_c, 40_000)
    moved = Counter(b for a, b in zip(before, after, strict=True) if a == "c")
    assert all(a == b for a, b in zip(before, after, strict=True) if a != "c")
    total = moved.total()
    assert abs(total / 400 - 20) < 1
    for name in "abd":
        assert abs(moved[name] / total - weights[name] / 80) < 0.02


@pytest.mark.parametrize("selection", list(Selection))
def test_a_policy_that_only_fallbacks_can_serve(selection: Selection) -> None:
    """All weights 0: a fresh request gets the targets of the rules, in their order, and nobody else."""
    both = provider("a", 0), provider("b", 0)
    policy = stored(
        *both, provider("c", 0), selection=selection, fallbacks=(Fallback("b"), Fallback("a")), fallback_providers=both
    )
    assert names(plan(ask(), policy)) == ["b", "a"]


def test_a_weight_of_nothing_is_never_chosen_by_weight() -> None:
    """Weight 0 is no candidate, alone or among others."""
    assert names(plan(ask(), stored(provider("a", 0)))) == []
    assert names(plan(ask(), stored(provider("a", 0), provider("b")))) == ["b"]


def test_priority_tiers_come_first() -> None:
    """A higher priority is preferred whatever the weights; within a tier weights decide."""
    policy = stored(provider("low", 100), provider("x", 1, priority=5), provider("y", 1, priority=5))
    orders = [names(plan(ask(f"{i}"), policy)) for i in range(200)]
    assert {o[2] for o in orders} == {"low"}
    assert {o[0] for o in orders} == {"x", "y"}


def test_tenants_and_policies_are_spread_apart() -> None:
    """The same request id is not preferred alike by all tenants, nor by all policies."""
    policy = stored(*(provider(n) for n in "abcdefgh"))
    by_tenant = {names(plan(replace(ask(), tenant_id=f"t{i}"), policy))[0] for i in range(50)}
    by_policy = {names(plan(ask(), replace(policy, policy_id=f"p{i}")))[0] for i in range(50)}
    assert len(by_tenant) > 4
    assert len(by_policy) > 4


def test_best_score_prefers_the_better_figures() -> None:
    """Live figures beat the policy's; without them the policy's are taken; the snapshot's version is told."""
    policy = stored(
        provider("a", expected_latency_ms=100), provider("b", expected_latency_ms=200), selection=Selection.BEST_SCORE
    )
    assert names(plan(ask(), policy)) == ["a", "b"]
    live = plan(ask(), policy, snapshot=Snapshot(7, {provider_entry("a"): Live(300, 32, 0, 0)}))
    assert names(live) == ["b", "a"]
    assert (live.figures_version, live.candidates[1].expected_latency_ms) == (7, 294)
    assert {c.reason for c in live.candidates} == {Reason.BEST_SCORE}


# Constraints


def test_who_breaks_a_constraint_is_passed_over() -> None:
    """Too slow or too dear: no candidate, and the plan says why; a bound that is just met is kept."""
    policy = stored(
        provider("slow", expected_latency_ms=500),
        provider("dear", expected_latency_ms=10, expected_cost_microusd=900),
        provider("fine", expected_latency_ms=100, expected_cost_microusd=50),
    )
    bounds = Constraints(max_latency_ms=100, max_cost_microusd=50)
    planned = plan(ask(constraints=bounds), policy)
    assert names(planned) == ["fine"]
    assert {(p.provider_id, p.verdict) for p in planned.passed_over} == {
        ("slow", Verdict.CONSTRAINT),
        ("dear", Verdict.CONSTRAINT),
    }


# Charges


def charged(of: Limit, wanted: DecideRequest, *providers: Provider) -> list[tuple[str, int]]:
    """Owners and units of the plan's charges."""
    policy = stored(*(providers or (provider("a", expected_cost_microusd=70),)), limits=(of,))
    return [(c.owner, c.units) for c in plan(wanted, policy).charges]


def test_a_request_without_a_user_counts_for_the_shared_one() -> None:
    """A user limit charges the user, or one shared anonymous user."""
    of = limit("u", Scope.USER, Resource.REQUESTS, 5, MINUTE)
    assert charged(of, ask(user_id="ann")) == [("ann", 1)]
    assert charged(of, ask()) == [(ANONYMOUS, 1)]


def test_the_owner_of_a_policy_limit_is_the_policy() -> None:
    """Tenant limits have no owner, policy limits the policy."""
    assert charged(limit("t", Scope.TENANT, Resource.REQUESTS, 5, MINUTE), ask()) == [("", 1)]
    assert charged(limit("p", Scope.POLICY, Resource.REQUESTS, 5, MINUTE), ask()) == [("default", 1)]


def test_tokens_are_estimated() -> None:
    """The request's estimate, also of nothing, else the limit's default."""
    of = limit("t", Scope.TENANT, Resource.TOKENS, 500, MINUTE, default_estimate=40)
    assert charged(of, ask(options=Options(estimate_tokens=7))) == [("", 7)]
    assert charged(of, ask(options=Options(estimate_tokens=0))) == [("", 0)]
    assert charged(of, ask()) == [("", 40)]


def test_cost_is_reserved_for_the_dearest_candidate() -> None:
    """The request's estimate, else the dearest candidate's figure, else the limit's default."""
    of = limit("t", Scope.TENANT, Resource.COST, 500, MINUTE, default_estimate=40)
    pair = provider("a", expected_cost_microusd=70), provider("b", expected_cost_microusd=90)
    assert charged(of, ask(), *pair) == [("", 90)]
    assert charged(of, ask(options=Options(estimate_cost_microusd=5)), *pair) == [("", 5)]
    assert charged(of, ask(), provider("a")) == [("", 40)]


def test_provider_limits_belong_to_the_candidates() -> None:
    """Each candidate carries its own charge, in its own units."""
    of = limit("v", Scope.PROVIDER, Resource.COST, 500, MINUTE)
    policy = stored(
        provider("a", priority=1, expected_cost_microusd=70), provider("b", expected_cost_microusd=90), limits=(of,)
    )
    planned = plan(ask(), policy)
    assert planned.charges == ()
    assert [[(x.owner, x.units) for x in c.charges] for c in planned.candidates] == [[("a", 70)], [("b", 90)]]


# Pins, names, features


def test_a_pin_is_named_by_policy_and_session() -> None:
    """Same session, same pin; another session or policy, another pin; no session, no pin. Numbers are sessions too."""
    policy = stored(provider("a"), sticky=Sticky(ttl_ms=5_000))
    session = ask(context={"session_id": "s"})
    pin = plan(session, policy).pin
    assert pin is not None
    assert (pin.key, pin.ttl_ms) == ("s", 5_000)
    assert plan(replace(session, request_id="other"), policy).pin == pin
    assert plan(session, replace(policy, policy_id="other")).pin != pin
    assert plan(ask(context={"session_id": "t"}), policy).pin != pin
    numbered = plan(ask(context={"session_id": 12}), policy).pin
    assert numbered is not None
    assert numbered.key == "12"
    nothings: tuple[JsonValue, ...] = ("", None, True, [], {})
    for nothing in nothings:
        assert plan(ask(context={"session_id": nothing}), policy).pin is None


@pytest.mark.parametrize(
    "session",
    [
        " ",
        "\t\n",
        " " * 200,
        "\u3000",
        "null",
        "NULL",
        " null ",
        "undefined",
        "Undefined",
        "None",
        "nil",
        "<nil>",
        "(null)",
        "<null>",
        "NaN",
        "[object Object]",
    ],
)
@pytest.mark.parametrize("key", ["session_id", "conversation"])
def test_a_session_that_stands_for_none_pins_nothing(session: str, key: str) -> None:
    """Blank, or how a language writes a missing value, whatever the key: requests spread by their own ids."""
    pinned = stored(*(provider(n) for n in "abc"), sticky=Sticky(session_key=key))
    asked = [ask(f"r{n}", context={key: session}) for n in range(50)]
    assert len({names(plan(a, pinned))[0] for a in asked}) > 1
    assert {plan(a, pinned).pin for a in asked} == {None}
    assert has_empty_session(asked[0], pinned)
    assert "pins" not in plan(asked[0], pinned, Features(pins=False)).requires_cp


@pytest.mark.parametrize(
    "session", ["0", "nullable", "null-1", "none of your business", "x", "undefined:7", "·", "nan-7", "object"]
)
def test_a_session_that_only_looks_like_none_pins(session: str) -> None:
    """Whole words only."""
    pinned = stored(provider("a"), sticky=Sticky())
    asked = ask(context={"session_id": session})
    assert plan(asked, pinned).pin is not None
    assert not has_empty_session(asked, pinned)


def test_a_policy_without_sticky_sessions_has_no_empty_one() -> None:
    """Nothing is counted where the session means nothing."""
    assert not has_empty_session(ask(context={"session_id": "null"}), stored(provider("a")))


@pytest.mark.heavy
def test_a_session_is_ordered_by_its_own_name() -> None:
    """All requests of a session prefer alike, so that it stays where it was when its pin is lost or cannot be read;
    sessions together hold the weights. Without pins (policy or gate) each request goes by its own id."""
    pinned = stored(*(provider(n, w) for n, w in zip("abc", (60, 30, 10), strict=True)), sticky=Sticky())
    sessions = 20_000
    chosen = Counter[str]()
    for n in range(sessions):
        first, other = (
            names(plan(ask(f"{r}-{n}", context={"session_id": f"s-{n}"}), pinned)) for r in ("first", "other")
        )
        assert first == other
        chosen[first[0]] += 1
    for name, weight in zip("abc", (60, 30, 10), strict=True):
        assert abs(100 * chosen[name] / sessions - weight) < 1
    session = {"session_id": "s"}
    for policy, features in (
        (pinned, Features(pins=False)),
        (stored(*(provider(n) for n in "abc")), Features()),
    ):
        asked = [ask(f"r{n}", context=session) for n in range(50)]
        assert len({names(plan(a, policy, features))[0] for a in asked}) > 1
    assert names(plan(ask("s", context=session), pinned)) == names(plan(ask("t", context=session), pinned))


def test_the_idempotency_name() -> None:
    """The key if there is one, else the request id, apart from each other; a step of the caller is another name."""
    policy = stored(provider("a"))

    def name(wanted: DecideRequest) -> bytes:
        return plan(wanted, policy).name

    keyed = ask("r", idempotency_key="k")
    assert name(keyed) == name(ask("another", idempotency_key="k"))
    assert name(ask("k")) != name(keyed)
    assert name(ask("r", step=Step("timeout", "a", 1))) != name(ask("r"))
    assert name(ask("r", step=Step("timeout", "a", 1))) == name(ask("r", step=Step("timeout", "a", 1)))
    assert name(replace(ask("r"), tenant_id="globex")) != name(ask("r"))


def test_what_the_gate_closes_is_named() -> None:
    """A refused feature that the request would have used is ignored and named; an unused one is not."""
    policy = stored(provider("a"), provider("b"), sticky=Sticky(), selection=Selection.BEST_SCORE)
    closed = Features(pins=False, retries=False, best_score=False, explain=False)
    planned = plan(ask(context={"session_id": "s"}), policy, closed)
    assert planned.pin is None
    assert planned.max_attempts == 1
    assert {c.reason for c in planned.candidates} == {Reason.WEIGHTED}
    assert planned.requires_cp == ("pins", "best_score")


@pytest.mark.parametrize(
    "step",
    [Step("503", "a"), Step("timeout"), Step("error", "a", 1), Step("Rate_Limited", "a", 3), Step(None, "a", 1)],
)
def test_a_step_that_its_caller_walks_is_an_attempt(step: Step) -> None:
    """The gate withholds it like an attempt of dispatch: the answer is weighted, and says so."""
    rule = Fallback("c", ("503", "timeout", "error", "rate_limited"))
    policy = stored(provider("a", priority=1), provider("b"), fallbacks=(rule,), fallback_providers=(provider("c", 0),))
    closed = Features(retries=False)
    first, again = plan(ask(), policy, closed), plan(ask(step=step), policy, closed)
    assert names(again) == names(first) == ["a", "b", "c"]
    assert (first.requires_cp, again.requires_cp) == ((), ("retries",))
    assert again.name != first.name
    if step.failed:
        assert names(plan(ask(step=step), policy))[0] == "c"


@pytest.mark.parametrize("step", [Step("success", "a"), Step("SUCCESS"), Step(None, "a")])
def test_a_step_without_a_failure_is_no_further_attempt(step: Step) -> None:
    """Nothing is withheld."""
    assert plan(ask(step=step), stored(provider("a")), Features(retries=False)).requires_cp == ()


def test_every_candidate_has_its_own_deadline() -> None:
    """The record and the leases of a pushed task last as long as the slowest may take; what it is told is its own."""
    policy = stored(provider("a", expected_latency_ms=1_000, priority=1), provider("b", expected_latency_ms=9_000))
    made = plan(ask(push_assignment=True), policy)
    assert [made.deadline_of(c) for c in made.candidates] == [5_000, 45_000]
    assert (made.first_deadline_ms, made.deadline_ms) == (5_000, 45_000)
    assert plan(ask(), policy).deadline_ms == 5_000
    given = plan(ask(push_assignment=True, options=Options(deadline_ms=123)), policy)
    assert {given.deadline_ms, *map(given.deadline_of, given.candidates)} == {123}


@pytest.mark.parametrize(("latency", "deadline"), [(0, 5_000), (1_000, 5_000), (2_000, 10_000), (50_000, 60_000)])
def test_the_deadline_follows_the_first_candidate(latency: int, deadline: int) -> None:
    """Five times the expected latency, between 5 and 60 s; a given one is taken as it is."""
    policy = stored(provider("a", expected_latency_ms=latency))
    assert plan(ask(), policy).deadline_ms == deadline
    assert plan(ask(options=Options(deadline_ms=123)), policy).deadline_ms == 123
    assert plan(ask(), policy, deadlines=Deadlines(factor=1, min_ms=1, max_ms=9)).deadline_ms == min(9, latency or 1)


# What a policy remembers of earlier plans


def test_a_constraint_is_of_its_request_alone() -> None:
    """Plans before and after it are those of a policy that has seen nothing."""
    cheap, dear = provider("cheap", expected_cost_microusd=10_000), provider("dear", expected_cost_microusd=500_000)
    used = stored(cheap, dear)
    plain, bound = ask("r"), ask("r", constraints=Constraints(max_cost_microusd=100_000))
    for wanted in (plain, bound, plain, bound, bound, plain):
        fresh = plan(wanted, stored(cheap, dear))
        planned = plan(wanted, used)
        assert (names(planned), planned.passed_over) == (names(fresh), fresh.passed_over)
    assert names(plan(bound, used)) == ["cheap"]


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("resource", [Resource.REQUESTS, Resource.TOKENS, Resource.COST])
def test_a_charge_is_of_its_request_alone(scope: Scope, resource: Resource) -> None:
    """Users and estimates of one request never count for another's."""

    def made() -> StoredPolicy:
        of = limit("l", scope, resource, 1_000, MINUTE, default_estimate=7)
        return stored(provider("a"), provider("b"), limits=(of,))

    def charges(planned: Plan) -> list[tuple[str, int]]:
        all_charges = (*planned.charges, *(c for x in planned.candidates for c in x.charges))
        return [(c.owner, c.units) for c in all_charges]

    used = made()
    asks = [
        ask("r", user_id=user, options=Options(estimate_tokens=tokens, estimate_cost_microusd=cost))
        for user in (None, "u", "v")
        for tokens, cost in ((None, None), (5, None), (None, 9), (0, 0))
    ]
    for wanted in (*asks, *reversed(asks)):
        assert charges(plan(wanted, used)) == charges(plan(wanted, made()))
