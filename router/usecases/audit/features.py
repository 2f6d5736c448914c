"""What the audit keeps of a decision and of a step of a task, and its packed form."""

from msgspec import msgpack

from router.domain.audit import DecisionFeatures, TaskFeatures, policy_frame
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.plan import Plan
from router.domain.request import DecideRequest
from router.domain.result import ExecResult
from router.domain.task import TaskRecord

_pack = msgpack.Encoder().encode


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
