"""What a settled success used, as the event that is metered once."""

from msgspec.structs import replace

from router.domain.ids import assignment_id, task_id, to_text
from router.domain.outcome import Remembered
from router.domain.result import ExecResult
from router.domain.task import TaskRecord
from router.usecases.tasks.moves import origin_of
from router.wire.assignment import Usage, usage_event


def measured(record: TaskRecord, result: ExecResult, now_ms: int) -> ExecResult:
    """A success with the figures that its worker did not tell: the time since the decision, and the expected cost.

    Its caller and the meter are told the same ones.
    """
    if result.latency_ms is not None and result.cost_microusd is not None:
        return result
    latency_ms, cost = result.latency_ms, result.cost_microusd
    return replace(
        result,
        latency_ms=max(0, now_ms - record.charged_ms) if latency_ms is None else latency_ms,
        cost_microusd=record.expected_cost_microusd if cost is None else cost,
    )


def usage_of_task(record: TaskRecord, result: ExecResult, wall_ms: int) -> bytes:
    """Of a dispatched task: its identity is the task's. `result` is `measured`."""
    facts = record.facts
    task = task_id(record.decision_id)
    return usage_event(
        Usage(
            to_text(task),
            facts.tenant_id,
            record.provider_id,
            facts.task_type,
            result.latency_ms or 0,
            result.cost_microusd or 0,
            result.status,
            wall_ms,
            facts.request_id,
            to_text(assignment_id(task, record.attempt)),
            result.tokens,
            facts.idempotency_key,
            origin_of(facts).correlation,
        )
    )


def usage_of_decision(kept: Remembered, result: ExecResult, tenant_id: str, wall_ms: int) -> bytes:
    """Of a decision whose caller ran the task and wanted it metered: its identity is the decision's."""
    return usage_event(
        Usage(
            to_text(kept.decision_id),
            tenant_id,
            kept.provider_id,
            result.job_type or "unknown",
            result.latency_ms or 0,
            kept.expected_cost_microusd if result.cost_microusd is None else result.cost_microusd,
            result.status,
            wall_ms,
            result.request_id or to_text(kept.decision_id),
            None,
            result.tokens,
            result.idempotency_key,
            result.correlation,
        )
    )
