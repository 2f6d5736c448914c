"""The next attempt of a task: whether there is one, its delay, and its plan.

When an attempt fails, its task either ends or waits for the next attempt. The delivery record of a waiting task stores
what ended the attempt, as a number (`why_of`). So any pod can plan the next attempt, even after a crash.
"""

from typing import assert_never
from zlib import crc32

from msgspec.structs import replace

from router.domain.decide.candidates import attributes_match
from router.domain.decide.figures import Snapshot
from router.domain.decide.plan import Deadlines, Plan, plan
from router.domain.decide.request import DecideRequest, Step
from router.domain.gate import Features
from router.domain.policy.fallbacks import status_matches
from router.domain.policy.model import DEFAULT_ATTEMPTS, Backoff, Fallback, Policy, StoredPolicy
from router.domain.policy.vocabulary import Resource, Strategy
from router.domain.tasks.result import ExecResult, ResultStatus
from router.domain.tasks.task import TaskRecord

DEFAULT_BACKOFF_MS = 200

# The stored number of what ended an attempt: an HTTP number as it is, a word as its index here.
# Pods of two versions read it during a roll: only append.
_STORED_STATUSES = (
    *("", "error", "timeout", "cancelled", "rate_limited", "circuit_breaker_open"),
    *("all_providers_failed", "context_length_exceeded", "content_filter"),
)


def why_of(result: ExecResult) -> int:
    """The stored number of a failed result's status: its HTTP number, else the number of its word."""
    code = (result.error_code or "").lower().removeprefix("http_")
    if len(code) == 3 and code.isdigit():
        return int(code)
    if code in _STORED_STATUSES[1:]:
        return _STORED_STATUSES.index(code)
    # A server error without an HTTP number matches the rules for 500.
    return 500 if code in ("server_error", "5xx") else _STORED_STATUSES.index(result.status.value)


def why_status(status: ResultStatus) -> int:
    """The stored number of the status of an attempt that ended without a result."""
    return _STORED_STATUSES.index(status.value)


def status_of(why: int) -> str:
    """The status, as text, that a rule's `when.status` is compared with."""
    return str(why) if why >= len(_STORED_STATUSES) else _STORED_STATUSES[why]


def next_in_ms(policy: Policy | None, record: TaskRecord, why: int, request: DecideRequest | None) -> int | None:
    """The delay before the next attempt in ms; None: the task has no attempt left.

    The number of attempts is the request's option, else 1 + `retry` of the first rule that matches the request and the
    failure, else 2. The delay is the request's option, else that rule's backoff, else 200 ms. `request` may be None if
    `looks_at_request` returns False, or if the work item is lost; without it, no rule with attributes matches.
    """
    facts = record.facts
    if record.attempt >= facts.max_attempts:
        return None
    rules = () if policy is None else policy.fallbacks
    rule = next((r for r in rules if status_matches(r.statuses, status_of(why)) and _is_for(r, request)), None)
    if facts.by_rule and record.attempt >= (DEFAULT_ATTEMPTS if rule is None else 1 + rule.retry):
        return None
    if facts.backoff_ms is not None:
        return facts.backoff_ms
    if rule is None or rule.backoff is None:
        return DEFAULT_BACKOFF_MS
    delay = _delay(rule.backoff, record.attempt)
    return _spread(delay, record) if rule.backoff.jitter else delay


def looks_at_request(policy: Policy | None, record: TaskRecord) -> bool:
    """Whether `next_in_ms` needs the request.

    It does if a rule compares the type, context or metadata, and the request does not set all retry options itself.
    """
    facts = record.facts
    return policy is not None and policy.has_attributes and (facts.by_rule or facts.backoff_ms is None)


def _is_for(rule: Fallback, request: DecideRequest | None) -> bool:
    return not rule.attributes if request is None else attributes_match(rule, request)


def _spread(delay_ms: int, record: TaskRecord) -> int:
    """Shorten a delay by up to half, so that tasks that failed together are not retried together.

    The result for an attempt is the same on every pod, so a repeated move is identical to the first.
    """
    half = delay_ms // 2
    return delay_ms - crc32(record.decision_id + record.attempt.to_bytes(4)) % (half + 1)


def _delay(backoff: Backoff, failed_attempts: int) -> int:
    match backoff.strategy:
        case Strategy.EXPONENTIAL:
            delay = backoff.base_ms << min(failed_attempts - 1, 20)
        case Strategy.LINEAR:
            delay = backoff.base_ms * failed_attempts
        case Strategy.FIXED:
            delay = backoff.base_ms
        case _:
            assert_never(backoff.strategy)
    return min(delay, backoff.max_ms)


def next_plan(
    request: DecideRequest,
    stored: StoredPolicy,
    record: TaskRecord,
    features: Features,
    deadlines: Deadlines,
    snapshot: Snapshot,
) -> Plan:
    """Plan the next attempt. Fallback rules match the status that ended the last attempt.

    Its only charges are concurrency leases: other reservations of the first attempt stay in force. A task keeps its
    further attempts when the gate closes.
    """
    step = Step(status_of(record.why), record.provider_id, record.attempt - 1)
    fresh_plan = plan(
        request=replace(request, step=step),
        stored=stored,
        features=replace(features, retries=True),
        deadlines=deadlines,
        snapshot=snapshot,
    )
    leases = tuple(c for c in fresh_plan.charges if c.limit.resource is Resource.CONCURRENCY)
    facts = record.facts
    return replace(
        fresh_plan,
        charges=leases,
        pin=None,
        max_attempts=facts.max_attempts,
        by_rule=facts.by_rule,
    )
