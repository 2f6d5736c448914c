"""Moves of a task, built from its record; shared by acks, results, the sweeper and undone decisions."""

import logging
from typing import assert_never

from msgspec.structs import replace

from router.domain.audit.records import TaskFeatures
from router.domain.decide.outcome import Reservation
from router.domain.decide.request import Correlation
from router.domain.ids import task_id
from router.domain.policy.model import TenantPolicies
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.tasks.attempts import looks_at_request, next_in_ms
from router.domain.tasks.result import BreakerVerdict, ExecResult, ResultStatus
from router.domain.tasks.task import Action, Correction, Final, Move, TaskFacts, TaskRecord, TaskState
from router.ports.tasks import TaskStore
from router.usecases.audit.features import pack_features
from router.usecases.policies.lookups import breaker_of, policy_of
from router.wire.worker.job import Origin, request_of

log = logging.getLogger("router.tasks")

_RESOURCES = frozenset(Resource)
STATUS_CODES = {"success": 0, "error": 1, "timeout": 2, "cancelled": 3}
"""Stored code of each result status in audit records."""


def origin_of(facts: TaskFacts) -> Origin:
    """The tenant, request and correlation ids of a task, for events."""
    correlation = Correlation(
        trace_id=facts.trace_id, run_id=facts.run_id, flow_id=facts.flow_id, step_id=facts.step_id
    )
    return Origin(
        tenant_id=facts.tenant_id,
        request_id=facts.request_id,
        task_type=facts.task_type,
        idempotency_key=facts.idempotency_key,
        correlation=correlation,
    )


def note_move(
    tenant_id: str, decision_id: bytes, action: Action, features: TaskFeatures, *, attempt: int = 0, code: int = 0
) -> Move:
    """A move that writes an audit record and changes no task."""
    return Move(
        tenant_id=tenant_id,
        decision_id=decision_id,
        action=action,
        features=pack_features(features),
        code=code,
        attempt=attempt,
        note=True,
    )


def waiting_move(
    record: TaskRecord,
    policies: TenantPolicies | None,
    action: Action,
    features: TaskFeatures,
    *,
    why: int,
    due_ms: int,
    verdict: BreakerVerdict = BreakerVerdict.NEITHER,
) -> Move:
    """The move of a failed attempt whose task waits for the next one, due at `due_ms` (Redis time).

    It releases the provider's leases; the task's other leases stay until the task ends.
    """
    move = _failed_move(record=record, policies=policies, action=action, features=features, verdict=verdict)
    return replace(
        move,
        before_state=TaskState.WAITING,
        state=TaskState.WAITING,
        due_ms=due_ms,
        leases=tuple(x for x in move.leases if x.reservation.scope == Scope.PROVIDER),
        why=why,
    )


def ending_move(
    record: TaskRecord,
    policies: TenantPolicies | None,
    action: Action,
    features: TaskFeatures,
    *,
    state: TaskState,
    keep_ms: int,
    verdict: BreakerVerdict = BreakerVerdict.NEITHER,
    final: Final | None = None,
) -> Move:
    """The move that ends a task without a result to settle: it releases all leases, and reserved estimates stay."""
    move = _failed_move(record=record, policies=policies, action=action, features=features, verdict=verdict)
    return replace(move, state=state, keep_ms=keep_ms, final=final)


def _failed_move(
    record: TaskRecord,
    policies: TenantPolicies | None,
    action: Action,
    features: TaskFeatures,
    verdict: BreakerVerdict,
) -> Move:
    """The part that the end of an attempt and the end of a task have in common; the caller adds the new state."""
    facts = record.facts
    _, leases = split_reservations(facts.reserved, record.provider_id, record.expected_cost_microusd, None)
    return Move(
        tenant_id=facts.tenant_id,
        decision_id=record.decision_id,
        action=action,
        features=pack_features(features),
        code=STATUS_CODES.get(features.status or "", 0),
        task_id=task_id(record.decision_id),
        attempt=record.attempt,
        verdict=verdict,
        breaker=breaker_of(policies, facts.policy_id),
        provider_entry=record.provider_entry,
        leases=leases,
    )


NOTHING_USED = ExecResult(ResultStatus.CANCELLED, cost_microusd=0, tokens=0)
"""The result of work that never began: `split_reservations` gives all its units back."""


def split_reservations(
    reserved: tuple[Reservation, ...],
    provider_id: str,
    provider_cost: int,
    result: ExecResult | None,
    *,
    given_back: bool = False,
) -> tuple[tuple[Correction, ...], tuple[Correction, ...]]:
    """Split reservations into corrections of units and leases to release.

    A resource is corrected only if `result` reports how much of it was used; otherwise the estimate stays.
    `provider_cost` (micro-USD) replaces the units of reservations that stand for the chosen provider's cost.
    `given_back`: the reservations stand no more, so what was used, or else the estimate, is charged in full.
    """
    corrections: list[Correction] = []
    leases: list[Correction] = []
    for r in reserved:
        if r.resource not in _RESOURCES:
            continue  # a newer pod reserved it: the estimate stays
        owner = provider_id if r.scope == Scope.PROVIDER and not r.owner else r.owner
        resource = Resource(r.resource)
        if resource is Resource.CONCURRENCY:
            leases.append(Correction(r, owner, 0))
            continue
        used = None if result is None else _used(resource, result)
        units = provider_cost if r.units < 0 else r.units
        if used is None and resource is Resource.REQUESTS:
            continue  # a request is never given back
        standing = 0 if given_back else units
        delta = (units if used is None else used) - standing
        if delta:
            corrections.append(Correction(r, owner, delta))
    return tuple(corrections), tuple(leases)


def _used(resource: Resource, result: ExecResult) -> int | None:
    """The units that a result reports for a resource; None: it does not report them."""
    match resource:
        case Resource.TOKENS:
            return result.tokens
        case Resource.COST:
            return result.cost_microusd
        case Resource.REQUESTS | Resource.CONCURRENCY:
            return None  # a request counts 1; a lease is released
        case _:
            assert_never(resource)


async def next_attempt_wait_ms(
    tasks: TaskStore, policies: TenantPolicies | None, record: TaskRecord, why: int
) -> int | None:
    """Milliseconds until the next attempt of a task; None: its attempts are used up.

    The work item is read from the store only if a fallback rule depends on the request.

    :raises StoreError: Redis did not answer.
    """
    policy = policy_of(policies, record.facts.policy_id)
    request = None
    if looks_at_request(policy, record):
        (job,) = await tasks.jobs([task_id(record.decision_id)])
        try:
            request = None if job is None else request_of(job)
        except ValueError as fault:
            # The next attempt needs the work item too: `Attempts.begin` then ends the task.
            log.warning("work item cannot be read: %s", fault)
    return next_in_ms(policy, record, why, request)
