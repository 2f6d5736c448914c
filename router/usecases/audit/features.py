"""The features that an audit record keeps of a decision or of a step of a task, and their packed form."""

from msgspec import convert, msgpack

from router.domain.audit.records import DecisionFeatures, TaskFeatures, decision_features, policy_frame
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.tasks.result import ExecResult
from router.domain.tasks.task import TaskRecord

_pack = msgpack.Encoder().encode


def features_of(
    record: TaskRecord,
    attempt: int,
    result: ExecResult | None = None,
    *,
    status: str | None = None,
    note: str | None = None,
) -> TaskFeatures:
    """The features of a step of a task. `status` counts only without a result."""
    facts = record.facts
    return TaskFeatures(
        request_id=facts.request_id,
        policy_id=facts.policy_id,
        policy_revision=facts.policy_revision,
        provider_id=record.provider_id,
        assignment_id=to_text(assignment_id(task_id(record.decision_id), attempt)),
        user_id=facts.user_id,
        trace_id=facts.trace_id,
        status=status if result is None else result.status.value,
        error_code=None if result is None else result.error_code,
        latency_ms=None if result is None else result.latency_ms,
        cost_microusd=None if result is None else result.cost_microusd,
        tokens=None if result is None else result.tokens,
        note=note,
        ip_address=facts.client_ip,
    )


def features_of_decision(request: DecideRequest, plan: Plan, script: str = "") -> DecisionFeatures:
    """The features of a decision. `script`: version of the script that decided; empty: none did."""
    return convert(decision_features(request, plan, policy_frame(plan, script)), DecisionFeatures)


def pack_features(features: TaskFeatures) -> bytes:
    """Pack the features of a step of a task into the bytes of its audit record."""
    return _pack(features)


def pack_decision_features(features: DecisionFeatures) -> bytes:
    """Pack the features of a decision into the bytes of its audit record."""
    return _pack(features)
