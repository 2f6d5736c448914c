"""Usage events of settled successes; each is metered once."""

from msgspec.structs import replace

from router.domain.decide.outcome import RequestFacts, StoredAnswer
from router.domain.decide.request import Correlation
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.tasks.result import ExecResult
from router.domain.tasks.task import TaskRecord
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


def usage_of_task(record: TaskRecord, result: ExecResult, now_ms: int) -> bytes:
    """The usage event of a dispatched task; the task id is its usage_id.

    `result` comes from `complete_figures`. `now_ms`: Redis time, never the pod's clock: consumers bill by it.
    """
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
            timestamp_ms=now_ms,
            request_id=facts.request_id,
            assignment_id=to_text(assignment_id(task, record.attempt)),
            tokens=result.tokens,
            tokens_input=result.tokens_input,
            tokens_output=result.tokens_output,
            idempotency_key=facts.idempotency_key,
            correlation=origin_of(facts).correlation,
        )
    )


def usage_of_decision(remembered: StoredAnswer, result: ExecResult, tenant_id: str, now_ms: int) -> bytes:
    """The usage event of a decision that its caller executed and wants metered; the decision id is its usage_id.

    Ids and type are the request's own, whatever the result says; an answer of version 0.1.0 holds none.
    """
    facts = facts_of(remembered, result)
    cost = remembered.expected_cost_microusd if result.cost_microusd is None else result.cost_microusd
    return encode_usage_event(
        Usage(
            usage_id=to_text(remembered.decision_id),
            tenant_id=tenant_id,
            provider_id=remembered.provider_id,
            event_type=facts.task_type,
            latency_ms=result.latency_ms or 0,
            cost_microusd=cost,
            status=result.status,
            timestamp_ms=now_ms,
            request_id=facts.request_id or to_text(remembered.decision_id),
            assignment_id=None,
            tokens=result.tokens,
            tokens_input=result.tokens_input,
            tokens_output=result.tokens_output,
            idempotency_key=facts.idempotency_key,
            correlation=Correlation(
                trace_id=facts.trace_id, run_id=facts.run_id, flow_id=facts.flow_id, step_id=facts.step_id
            ),
        )
    )


def facts_of(remembered: StoredAnswer, result: ExecResult) -> RequestFacts:
    """The request's own ids and type if its answer holds them, else those that the result names."""
    if remembered.facts is not None:
        return remembered.facts
    c = result.correlation
    return RequestFacts(
        request_id=result.request_id or "",
        task_type=result.job_type or "unknown",
        trace_id=c.trace_id,
        run_id=c.run_id,
        flow_id=c.flow_id,
        step_id=c.step_id,
        idempotency_key=result.idempotency_key,
    )
