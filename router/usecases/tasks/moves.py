"""What dispatch, settling and sweeping share: moves of a task, told by its record."""

import logging

from msgspec import msgpack
from msgspec.structs import replace

from router.domain.attempts import looks_at_request, next_in_ms
from router.domain.audit import TaskFeatures
from router.domain.ids import task_id
from router.domain.policy.model import Resource, Scope, TenantPolicies
from router.domain.request import Correlation
from router.domain.result import BreakerVerdict, ExecResult
from router.domain.task import Action, Correction, Final, Move, Reservation, TaskFacts, TaskRecord, TaskState
from router.ports.tasks import TaskStore
from router.usecases.policies.lookups import breaker_of, policy_of
from router.wire.job import Origin, request_of

log = logging.getLogger("router.tasks")

_pack = msgpack.Encoder().encode
STATUS_CODES = {"success": 0, "error": 1, "timeout": 2, "cancelled": 3}


def origin_of(facts: TaskFacts) -> Origin:
    """Whose task it is and what it correlates with, for events."""
    correlation = Correlation(facts.trace_id, facts.run_id, facts.flow_id, facts.step_id)
    return Origin(facts.tenant_id, facts.request_id, facts.task_type, facts.idempotency_key, correlation)


def note(
    tenant_id: str, decision_id: bytes, action: Action, features: TaskFeatures, *, attempt: int = 0, code: int = 0
) -> Move:
    """A record in the audit, and nothing else."""
    return Move(tenant_id, decision_id, action, _pack(features), code, attempt=attempt, note=True)


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
    """The attempt has failed and the next one is due at `due_ms`: its provider is let go, all else carries on."""
    made = _failed_move(record, policies, action, features, verdict)
    return replace(
        made,
        below=TaskState.WAITING,
        state=TaskState.WAITING,
        due_ms=due_ms,
        leases=tuple(x for x in made.leases if x.reservation.scope == Scope.PROVIDER),
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
    """The task has ended without a success that could be settled: every lease is let go, estimates stand."""
    made = _failed_move(record, policies, action, features, verdict)
    return replace(made, state=state, keep_ms=keep_ms, final=final)


def _failed_move(
    record: TaskRecord,
    policies: TenantPolicies | None,
    action: Action,
    features: TaskFeatures,
    verdict: BreakerVerdict,
) -> Move:
    """What the end of an attempt and of a task have in common; it says nothing of the state yet."""
    facts = record.facts
    _, leases = split_reservations(facts.reserved, record.provider_id, record.expected_cost_microusd, None)
    return Move(
        facts.tenant_id,
        record.decision_id,
        action,
        _pack(features),
        STATUS_CODES.get(features.status or "", 0),
        task_id(record.decision_id),
        record.attempt,
        verdict=verdict,
        breaker=breaker_of(policies, facts.policy_id),
        provider_entry=record.provider_entry,
        leases=leases,
    )


def split_reservations(
    reserved: tuple[Reservation, ...], provider_id: str, provider_cost: int, result: ExecResult | None
) -> tuple[tuple[Correction, ...], tuple[Correction, ...]]:
    """(units to correct, leases to free). Only a result that tells its figures corrects; else the estimate stands."""
    corrections: list[Correction] = []
    leases: list[Correction] = []
    for r in reserved:
        owner = provider_id if r.scope == Scope.PROVIDER and not r.owner else r.owner
        if r.resource == Resource.CONCURRENCY:
            leases.append(Correction(r, owner, 0))
            continue
        used = None
        if result is not None:
            used = result.tokens if r.resource == Resource.TOKENS else result.cost_microusd
        units = provider_cost if r.units < 0 else r.units
        if used is not None and used != units:
            corrections.append(Correction(r, owner, used - units))
    return tuple(corrections), tuple(leases)


async def next_of(tasks: TaskStore, policies: TenantPolicies | None, record: TaskRecord, why: int) -> int | None:
    """How many ms a task waits for its next attempt; None: there is none.

    Its work item is read only where a rule looks at the request.

    :raises StoreError: Redis did not answer.
    """
    policy = policy_of(policies, record.facts.policy_id)
    request = None
    if looks_at_request(policy, record):
        (job,) = await tasks.jobs([task_id(record.decision_id)])
        try:
            request = None if job is None else request_of(job)
        except ValueError as fault:
            # The next attempt cannot be planned without it and says so.
            log.warning("a work item cannot be read: %s", fault)
    return next_in_ms(policy, record, why, request)
