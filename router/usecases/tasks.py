"""What dispatch, settling and sweeping share: moves of a task, told by its record."""

import logging
from typing import Protocol

from msgspec import msgpack
from msgspec.structs import replace

from router.domain.attempts import looks_at_request, next_in_ms
from router.domain.audit import DecisionFeatures, TaskFeatures, policy_frame
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.plan import Plan
from router.domain.policy.model import Breaker, Policy, Resource, Scope, TenantPolicies
from router.domain.request import Correlation, DecideRequest
from router.domain.result import BreakerVerdict, ExecResult
from router.domain.task import Action, Correction, Final, Move, Reservation, TaskFacts, TaskRecord, TaskState
from router.ports.tasks import TaskStore
from router.usecases.intake import Loading
from router.wire.job import Origin, request_of

log = logging.getLogger("router.tasks")

_pack = msgpack.Encoder().encode
STATUS_CODES = {"success": 0, "error": 1, "timeout": 2, "cancelled": 3}


class Policies(Protocol):
    """Policies in process; see `usecases.intake.Policies`."""

    def get(self, tenant_id: str) -> TenantPolicies | Loading | None:
        """What is cached."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """Read them from the store."""


async def policies_of(policies: Policies, tenant_id: str) -> TenantPolicies | None:
    """The tenant's policies, from the cache if they are there.

    :raises StoreError: they are not, and the store did not answer.
    """
    known = policies.get(tenant_id)
    return await policies.load(tenant_id) if isinstance(known, Loading) else known


def origin_of(facts: TaskFacts) -> Origin:
    """Whose task it is and what it correlates with, for events."""
    correlation = Correlation(facts.trace_id, facts.run_id, facts.flow_id, facts.step_id)
    return Origin(facts.tenant_id, facts.request_id, facts.task_type, facts.idempotency_key, correlation)


def note(
    tenant_id: str, decision_id: bytes, action: Action, features: TaskFeatures, *, attempt: int = 0, code: int = 0
) -> Move:
    """A record in the audit, and nothing else."""
    return Move(tenant_id, decision_id, action, _pack(features), code, attempt=attempt, note=True)


def features_of(
    record: TaskRecord,
    attempt: int,
    result: ExecResult | None = None,
    *,
    status: str | None = None,
    note: str | None = None,
) -> TaskFeatures:
    """What the audit keeps of a step of a task."""
    facts = record.facts
    return TaskFeatures(
        facts.request_id,
        facts.policy_id,
        facts.policy_revision,
        record.provider_id,
        to_text(assignment_id(task_id(record.decision_id), attempt)),
        facts.user_id,
        facts.trace_id,
        status if result is None else result.status.value,
        None if result is None else result.error_code,
        None if result is None else result.latency_ms,
        None if result is None else result.cost_microusd,
        None if result is None else result.tokens,
        note,
        facts.client_ip,
    )


def features_of_decision(request: DecideRequest, made: Plan) -> DecisionFeatures:
    """What the audit keeps of a decision."""
    return DecisionFeatures(
        request.request_id,
        request.task_type,
        request.user_id,
        request.client_ip,
        request.correlation.trace_id,
        made.figures_version,
        policy_frame(made),
        tuple(p.provider_id for p in made.passed_over),
    )


def pack_features(features: TaskFeatures) -> bytes:
    """The bytes that an audit record holds."""
    return _pack(features)


def pack_decision_features(features: DecisionFeatures) -> bytes:
    """The bytes that the audit record of a decision holds."""
    return _pack(features)


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


def policy_of(policies: TenantPolicies | None, policy_id: str) -> Policy | None:
    """A policy as it is now; None when it is gone."""
    stored = None if policies is None else policies.policies.get(policy_id)
    return None if stored is None else stored.policy


def breaker_of(policies: TenantPolicies | None, policy_id: str) -> Breaker | None:
    """The breaker's figures as the policy has them now; None when it has none (any more)."""
    policy = policy_of(policies, policy_id)
    return None if policy is None else policy.breaker
