"""Fallback rules: whom a failed step asks next, and how often."""

import pytest

from router.domain.decide.decision import Reason
from router.domain.decide.plan import plan
from router.domain.decide.request import DecideRequest, Options, Step
from router.domain.policy.fallbacks import status_matches
from router.domain.policy.model import Fallback, Policy, StoredPolicy, provider


def stored(*rules: Fallback, outside: tuple[str, ...] = ()) -> StoredPolicy:
    """Providers a, b, c in this order, and those rules; `outside` are named by rules only."""
    providers = tuple(provider(n, priority=3 - i) for i, n in enumerate("abc"))
    return StoredPolicy(
        "default",
        1,
        "0" * 16,
        Policy(providers, fallbacks=rules, fallback_providers=tuple(provider(n, 0) for n in outside)),
    )


def ask(step: Step | None = None, **more: object) -> DecideRequest:
    """A request at a step of its caller's own chain."""
    return DecideRequest("acme", "r", "default", "chat", bytes(8), step=step or Step(), **more)  # type: ignore[arg-type]


def order(policy: StoredPolicy, wanted: DecideRequest) -> list[tuple[str, Reason]]:
    """Candidates with their reasons."""
    return [(c.provider.name, c.reason) for c in plan(wanted, policy).candidates]


WEIGHTED, FALLBACK, RETRY = Reason.WEIGHTED, Reason.FALLBACK, Reason.RETRY


def test_without_a_step_the_targets_come_last() -> None:
    """A fresh request walks the pool, then the targets that are not in it."""
    policy = stored(Fallback("x"), Fallback("b"), outside=("x",))
    assert order(policy, ask()) == [("a", WEIGHTED), ("b", WEIGHTED), ("c", WEIGHTED), ("x", FALLBACK)]


def test_a_failed_step_is_retried_first() -> None:
    """`retry` tries go to the failed provider, the one that failed included; then the target is asked."""
    policy = stored(Fallback("c", ("timeout",), retry=3))
    for attempts, first in ((0, ("a", RETRY)), (1, ("a", RETRY)), (2, ("c", FALLBACK)), (9, ("c", FALLBACK))):
        assert order(policy, ask(Step("timeout", "a", attempts)))[0] == first


def test_a_rule_that_leads_back() -> None:
    """A used-up provider is not asked again because it is its own rule's target: it comes last."""
    policy = stored(Fallback("a", ("timeout",), retry=1))
    assert order(policy, ask(Step("timeout", "a", 1))) == [("b", WEIGHTED), ("c", WEIGHTED), ("a", RETRY)]


def test_a_used_up_provider_is_the_last_resort() -> None:
    """After its retries the failed one comes last, each candidate once."""
    policy = stored(Fallback("c", ("timeout",), retry=0))
    assert order(policy, ask(Step("timeout", "a"))) == [("c", FALLBACK), ("b", WEIGHTED), ("a", RETRY)]


def test_a_status_that_no_rule_matches() -> None:
    """The failed provider comes last all the same."""
    policy = stored(Fallback("c", ("timeout",)))
    assert order(policy, ask(Step("error", "a"))) == [("b", WEIGHTED), ("c", WEIGHTED), ("a", RETRY)]


def test_success_is_no_failure() -> None:
    """A caller that reports success gets the order of a fresh request."""
    policy = stored(Fallback("c"))
    assert order(policy, ask(Step("success", "a"))) == order(policy, ask())


def test_the_first_matching_rule_wins() -> None:
    """Rules are looked at in their order; the other's target stays where the pool has it."""
    policy = stored(Fallback("c", ("5xx",), retry=0), Fallback("b", ("503",), retry=0))
    assert order(policy, ask(Step("503", "a")))[0] == ("c", FALLBACK)


def test_an_unknown_current_provider() -> None:
    """A name that the policy does not have cannot be retried; the target is asked."""
    policy = stored(Fallback("c", retry=3))
    assert order(policy, ask(Step("timeout", "nobody")))[0] == ("c", FALLBACK)


@pytest.mark.parametrize(
    ("statuses", "status", "matches"),
    [
        ((), "anything", True),
        (("timeout",), "timeout", True),
        (("timeout",), "TIMEOUT", True),
        (("5xx",), "503", True),
        (("5xx",), "HTTP_503", True),
        (("5xx",), "http_5xx", True),
        (("503",), "503", True),
        (("503",), "504", False),
        (("5xx",), "404", False),
        (("5xx",), "5033", False),
        (("5xx",), "5ab", False),
        (("timeout", "4xx"), "429", True),
        (("error",), "timeout", False),
    ],
)
def test_statuses_and_classes(statuses: tuple[str, ...], status: str, matches: bool) -> None:
    """Words, numbers and classes match without regard to case or an HTTP_ prefix; no list matches all."""
    assert status_matches(statuses, status) is matches


def test_attributes_must_all_match() -> None:
    """A rule with attributes is of requests that have them, in context, metadata or type."""
    rule = Fallback("x", attributes=(("message_type", ("chat", "mail")), ("region", ("eu",))), retry=0)
    policy = stored(rule, outside=("x",))
    assert ("x", FALLBACK) in order(policy, ask(context={"region": "eu"}))
    assert ("x", FALLBACK) in order(policy, ask(metadata={"region": "eu"}))
    assert ("x", FALLBACK) not in order(policy, ask(context={"region": "us"}))
    assert ("x", FALLBACK) not in order(policy, ask())


def test_the_budget_of_attempts() -> None:
    """The request's, else one and the first matching rule's retries, else two."""
    assert plan(ask(), stored()).max_attempts == 2
    assert plan(ask(), stored(Fallback("b", retry=4))).max_attempts == 5
    assert plan(ask(options=Options(max_attempts=1)), stored(Fallback("b", retry=4))).max_attempts == 1
