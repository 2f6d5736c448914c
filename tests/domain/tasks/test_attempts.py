"""Whether a task has another attempt, when it is due, and how it is planned."""

import pytest
from msgspec.structs import replace

from router.domain.decide.decision import Reason
from router.domain.decide.figures import NO_FIGURES
from router.domain.decide.plan import DEFAULT_DEADLINES, plan
from router.domain.decide.request import DecideRequest, Options
from router.domain.gate import ALL_FEATURES
from router.domain.policy.fallbacks import STATUSES
from router.domain.policy.model import (
    Backoff,
    Fallback,
    Limit,
    Policy,
    Sticky,
    StoredPolicy,
    entry_id,
    provider,
    provider_entry,
)
from router.domain.policy.vocabulary import Resource, Scope, Strategy
from router.domain.tasks.attempts import (
    DEFAULT_BACKOFF_MS,
    looks_at_request,
    next_in_ms,
    next_plan,
    status_of,
    why_of,
    why_status,
)
from router.domain.tasks.result import ExecResult, ResultStatus
from router.domain.tasks.task import TaskFacts, TaskRecord, TaskState

POOL = (provider("a", 100, priority=2), provider("b", 100, priority=1), provider("c", 100))
REQUEST = DecideRequest("acme", "r", "default", "chat", b"12345678", context={"session_id": "s"}, push_assignment=True)


def record(
    attempt: int = 1, maximum: int = 3, provider_id: str = "a", why: int = 0, wish: int | None = None
) -> TaskRecord:
    """A waiting task of tenant acme."""
    facts = TaskFacts(
        "acme", "default", 1, "r", "chat", None, maximum, 9_000, None, None, None, None, None, None, None, (), wish
    )
    return TaskRecord(
        TaskState.WAITING,
        attempt,
        0,
        0,
        bytes(16),
        provider_entry(provider_id),
        provider_id,
        Reason.WEIGHTED,
        0,
        0,
        facts,
        why,
    )


def order(policy: Policy, waiting: TaskRecord) -> list[tuple[str, Reason]]:
    """The candidates of the next attempt."""
    stored = StoredPolicy("default", 1, "h", policy)
    made = next_plan(REQUEST, stored, waiting, ALL_FEATURES, DEFAULT_DEADLINES, NO_FIGURES)
    return [(c.provider.name, c.reason) for c in made.candidates]


@pytest.mark.parametrize(
    ("status", "code", "seen"),
    [
        (ResultStatus.ERROR, "HTTP_503", "503"),
        (ResultStatus.ERROR, "429", "429"),
        (ResultStatus.ERROR, "RATE_LIMITED", "rate_limited"),
        (ResultStatus.ERROR, "CONTEXT_LENGTH_EXCEEDED", "context_length_exceeded"),
        (ResultStatus.ERROR, "content_filter", "content_filter"),
        (ResultStatus.ERROR, "All_Providers_Failed", "all_providers_failed"),
        (ResultStatus.ERROR, "SERVER_ERROR", "500"),
        (ResultStatus.ERROR, "BAD_PROMPT", "error"),
        (ResultStatus.ERROR, None, "error"),
        (ResultStatus.TIMEOUT, None, "timeout"),
    ],
)
def test_what_a_result_says_to_rules(status: ResultStatus, code: str | None, seen: str) -> None:
    """A number as itself, a word of the vocabulary as itself, a server's fault as 500, all else by its status."""
    assert status_of(why_of(ExecResult(status, error_code=code))) == seen


@pytest.mark.parametrize("word", [w for w in STATUSES if w != "success"])
def test_a_result_can_report_every_word_that_rules_know(word: str) -> None:
    """Stored as a number that pods of another version do not take for an HTTP number; its rule leads on."""
    why = why_of(ExecResult(ResultStatus.ERROR, error_code=word.upper()))
    assert why < 100
    assert status_of(why) == word
    rule = Fallback("b", (word,), backoff=Backoff(Strategy.FIXED, 7_777, 7_777, jitter=False))
    policy = Policy(POOL, fallbacks=(Fallback("c", ("429",)), rule), fallback_providers=POOL[1:])
    assert next_in_ms(policy, record(1, 3), why, None) == 7_777


def test_a_missed_deadline_is_a_timeout() -> None:
    """An attempt without a result is matched as `timeout`."""
    assert status_of(why_status(ResultStatus.TIMEOUT)) == "timeout"


@pytest.mark.parametrize(("attempt", "maximum", "more"), [(1, 1, False), (1, 2, True), (2, 2, False), (2, 3, True)])
def test_one_budget(attempt: int, maximum: int, more: bool) -> None:
    """All attempts together, the first included, are at most `max_attempts`."""
    assert (next_in_ms(None, record(attempt, maximum), 503, None) is not None) is more


BY_STATUS = (Fallback("b", ("timeout",), retry=3), Fallback("c", ("error",), retry=1), Fallback("b", ("5xx",), retry=0))


@pytest.mark.parametrize(
    ("why", "attempts"),
    [(why_status(ResultStatus.TIMEOUT), 4), (why_status(ResultStatus.ERROR), 2), (503, 1), (429, 2)],
    ids=["timeout", "error", "a class", "no rule"],
)
def test_the_budget_is_that_of_the_rule_that_matches_the_failure(why: int, attempts: int) -> None:
    """1 + retry of the first rule for what ended the attempt, else 2; unless the request says how many."""
    policy = Policy(POOL, fallbacks=BY_STATUS, fallback_providers=POOL[1:])
    assert policy.attempts == 4

    def follows(attempt: int, *, by_rule: bool) -> bool:
        task = record(attempt, policy.attempts)
        task = replace(task, facts=replace(task.facts, by_rule=by_rule))
        return next_in_ms(policy, task, why, None) is not None

    assert [n for n in range(1, 5) if follows(n, by_rule=True)] == list(range(1, attempts))
    assert [n for n in range(1, 5) if follows(n, by_rule=False)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("strategy", "attempt", "delay"),
    [
        (Strategy.FIXED, 3, 100),
        (Strategy.LINEAR, 1, 100),
        (Strategy.LINEAR, 3, 300),
        (Strategy.EXPONENTIAL, 1, 100),
        (Strategy.EXPONENTIAL, 3, 400),
        (Strategy.EXPONENTIAL, 9, 1000),
    ],
)
def test_backoff_of_a_rule(strategy: Strategy, attempt: int, delay: int) -> None:
    """base, base · n or base · 2ⁿ⁻¹ after the n-th failed attempt, at most max."""
    rule = Fallback("b", ("timeout",), backoff=Backoff(strategy, 100, 1000, jitter=False))
    policy = Policy(POOL, fallbacks=(rule,), fallback_providers=POOL[1:2])
    assert next_in_ms(policy, record(attempt, 20), why_status(ResultStatus.TIMEOUT), None) == delay


def test_jitter_spreads_the_delays() -> None:
    """Of tasks that failed together each waits between half the delay and all of it, and always the same."""
    policy = Policy(
        POOL, fallbacks=(Fallback("b", backoff=Backoff(Strategy.FIXED, 1000, 1000)),), fallback_providers=POOL[1:2]
    )
    tasks = [replace(record(), decision_id=n.to_bytes(16)) for n in range(200)]
    waits = [next_in_ms(policy, task, 503, None) or 0 for task in tasks]
    assert min(waits) >= 500
    assert max(waits) <= 1000
    assert len(set(waits)) > 100
    assert waits == [next_in_ms(policy, task, 503, None) for task in tasks]


@pytest.mark.parametrize(
    ("asked", "delay"),
    [
        (REQUEST, 70),
        (replace(REQUEST, task_type="mail"), 900),
        (replace(REQUEST, context={"tier": "gold"}), 5),
        (replace(REQUEST, task_type="mail", metadata={"tier": "gold"}), 900),
        (replace(REQUEST, task_type="image"), DEFAULT_BACKOFF_MS),
        (None, DEFAULT_BACKOFF_MS),
    ],
)
def test_the_backoff_is_that_of_the_rule_for_this_request(asked: DecideRequest | None, delay: int) -> None:
    """Its type, context and metadata are matched as for the plan; a rule for other requests delays nobody."""

    def rule(base_ms: int, **when: str) -> Fallback:
        attributes = tuple((name, (word,)) for name, word in when.items())
        return Fallback("b", attributes=attributes, backoff=Backoff(Strategy.FIXED, base_ms, base_ms, jitter=False))

    rules = (rule(900, message_type="mail"), rule(5, tier="gold"), rule(70, message_type="chat"))
    policy = Policy(POOL, fallbacks=rules, fallback_providers=POOL[1:2])
    assert looks_at_request(policy, record())
    assert not looks_at_request(policy, record(wish=7))
    assert next_in_ms(policy, record(), 503, asked) == delay


def test_the_request_wins_over_the_rule() -> None:
    """options.retry.backoff_ms is what the caller asked for."""
    rule = Fallback("b", backoff=Backoff(Strategy.FIXED, 100, 1000))
    policy = Policy(POOL, fallbacks=(rule,), fallback_providers=POOL[1:2])
    assert next_in_ms(policy, record(wish=7), why_status(ResultStatus.TIMEOUT), None) == 7


def test_the_default_backoff() -> None:
    """Without wish and rule."""
    assert next_in_ms(Policy(POOL), record(), why_status(ResultStatus.TIMEOUT), None) == DEFAULT_BACKOFF_MS


def test_without_a_rule_the_next_fit_one_is_tried() -> None:
    """In the policy's order, without the one that failed: the weights' own order begins at the next tier."""
    names = [name for name, _ in order(Policy(POOL), record(why=503))]
    assert names.index("b") < names.index("c")
    assert names[0] == "b"


def test_a_rule_sends_to_its_target() -> None:
    """`retry: 1` (the default): one try on the failed one, then `to`."""
    policy = Policy(POOL, fallbacks=(Fallback("c", ("5xx",)),), fallback_providers=POOL[2:])
    assert order(policy, record(why=503))[0] == ("c", Reason.FALLBACK)


def test_a_rule_may_stay() -> None:
    """`retry: 2`: the second attempt is on the failed one still, the third goes to `to`."""
    policy = Policy(POOL, fallbacks=(Fallback("c", ("5xx",), retry=2),), fallback_providers=POOL[2:])
    assert order(policy, record(1, why=503))[0] == ("a", Reason.RETRY)
    assert order(policy, record(2, why=503))[0] == ("c", Reason.FALLBACK)


def test_a_target_that_failed_is_not_tried_first_again() -> None:
    """When `to` itself has failed, somebody else is tried."""
    policy = Policy(POOL, fallbacks=(Fallback("c", ("5xx",)),), fallback_providers=POOL[2:])
    assert order(policy, record(2, provider_id="c", why=503))[0][0] != "c"


def test_a_provider_that_was_deleted_meanwhile() -> None:
    """The failed provider has left the policy: it cannot be asked again, the rule's target is."""
    policy = Policy(POOL, fallbacks=(Fallback("c", ("5xx",), retry=3),), fallback_providers=POOL[2:])
    names = order(policy, record(1, provider_id="deleted", why=503))
    assert names[0] == ("c", Reason.FALLBACK)
    assert "deleted" not in dict(names)


def test_only_leases_are_charged_again() -> None:
    """Requests and tokens are spent by the first attempt; no pin is looked at."""
    limits = (
        Limit("requests", Scope.TENANT, Resource.REQUESTS, 10, 60_000, entry_id("1")),
        Limit("slots", Scope.TENANT, Resource.CONCURRENCY, 10, 0, entry_id("2")),
    )
    stored = StoredPolicy("default", 1, "h", Policy(POOL, limits=limits, sticky=Sticky()))
    made = next_plan(REQUEST, stored, record(), ALL_FEATURES, DEFAULT_DEADLINES, NO_FIGURES)
    assert [c.limit.id for c in made.charges] == ["slots"]
    assert made.pin is None


def test_the_next_provider_has_its_own_deadline() -> None:
    """Five times what is expected of it, not of the one that failed; a deadline that the request gave stays."""
    slow = replace(POOL[2], expected_latency_ms=9_000)
    policy = Policy(POOL[:2], fallbacks=(Fallback("c", ("5xx",)),), fallback_providers=(slow,))
    stored = StoredPolicy("default", 1, "h", policy)
    for deadline_ms, told in ((None, 45_000), (123, 123)):
        request = replace(REQUEST, options=Options(deadline_ms=deadline_ms))
        made = next_plan(request, stored, record(1, why=503), ALL_FEATURES, DEFAULT_DEADLINES, NO_FIGURES)
        assert (made.candidates[0].provider.name, made.first_deadline_ms) == ("c", told)


def test_the_plan_of_the_first_attempt_is_untouched() -> None:
    """The policy's plan cache serves decide requests: a next attempt must not leave its own order there."""
    stored = StoredPolicy("default", 1, "h", Policy(POOL))
    first = plan(REQUEST, stored)
    for failed in ("a", "b"):
        next_plan(REQUEST, stored, replace(record(), provider_id=failed), ALL_FEATURES, DEFAULT_DEADLINES, NO_FIGURES)
    assert plan(REQUEST, stored) == first
    assert plan(REQUEST, stored) == plan(REQUEST, StoredPolicy("default", 1, "h", Policy(POOL)))
