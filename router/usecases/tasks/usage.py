"""Usage events of settled successes; each is metered once."""

from msgspec.structs import replace

from router.domain.ids import assignment_id, task_id, to_text
from router.domain.outcome import StoredAnswer
from router.domain.result import ExecResult
from router.domain.task import TaskRecord
from router.usecases.tasks.moves import origin_of
from router.wire.assignment import Usage, encode_usage_event


def complete_figures(record: TaskRecord, result: ExecResult, now_ms: int) -> ExecResult:
    """Fill in the figures that a worker did not report: the time since the decision, and the expected cost.

    The usage event and the caller's final result use the same figures.
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
    """The usage event of a dispatched task; the task id is its usage_id. `result` comes from `complete_figures`."""
    facts = record.facts
    task = task_id(record.decision_id)
    return encode_usage_event(
        Usage(
            usage_id=to_text(task),
            tenant_id=facts.tenant_id,
            provider_id=record.provider_id,
            event_type=facts.task_type,
            latency_ms=result.latency_ms or 0,
            cost_microusd=result.cost_microusd or 0,
            status=result.status,
            timestamp_ms=wall_ms,
            request_id=facts.request_id,
            assignment_id=to_text(assignment_id(task, record.attempt)),
            tokens=result.tokens,
            tokens_input=result.tokens_input,
            tokens_output=result.tokens_output,
            idempotency_key=facts.idempotency_key,
            correlation=origin_of(facts).correlation,
        )
    )


def usage_of_decision(remembered: StoredAnswer, result: ExecResult, tenant_id: str, wall_ms: int) -> bytes:
    """The usage event of a decision that its caller executed and wants metered; the decision id is its usage_id."""
    cost = remembered.expected_cost_microusd if result.cost_microusd is None else result.cost_microusd
    return encode_usage_event(
        Usage(
            usage_id=to_text(remembered.decision_id),
            tenant_id=tenant_id,
            provider_id=remembered.provider_id,
            event_type=result.job_type or "unknown",
            latency_ms=result.latency_ms or 0,
            cost_microusd=cost,
            status=result.status,
            timestamp_ms=wall_ms,
            request_id=result.request_id or to_text(remembered.decision_id),
            assignment_id=None,
            tokens=result.tokens,
            tokens_input=result.tokens_input,
            tokens_output=result.tokens_output,
            idempotency_key=result.idempotency_key,
            correlation=result.correlation,
        )
    )
