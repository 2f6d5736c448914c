"""What workers and callers report: results, acks, heartbeats and dead letters; and what a result means to a breaker."""

import re
from enum import Enum, StrEnum
from typing import NamedTuple

from msgspec import Struct

from router.domain.decide.request import NO_CORRELATION, Correlation, Step
from router.domain.defects import Warnings
from router.domain.json import JsonValue


class ResultStatus(StrEnum):
    """How an attempt ended."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class ExecResult(Struct, frozen=True):
    """A reported result. It names an assignment; or, together with `tenant_id`, a decision, a request or its key.

    `provider_id` only distinguishes decisions of one request (`domain.tasks.steps`): the provider of a task is in its
    delivery record, that of a decision in its answer. None in an enveloped result, where it is the worker's own id.
    `step`: the caller's step, if the result names it; `NO_STEP`: the decision without a step. `assignment_id` and
    `decision_id` are 16 bytes; the cost is in micro-USD. `tokens` is the total. `warnings`: defects of fields that
    settling does not need.
    """

    status: ResultStatus
    assignment_id: bytes | None = None
    decision_id: bytes | None = None
    request_id: str | None = None
    idempotency_key: str | None = None
    tenant_id: str | None = None
    provider_id: str | None = None
    job_type: str | None = None
    latency_ms: int | None = None
    cost_microusd: int | None = None
    tokens: int | None = None
    tokens_input: int | None = None
    tokens_output: int | None = None
    output: JsonValue = None
    error_code: str | None = None
    error_message: str | None = None
    timestamp: JsonValue = None
    correlation: Correlation = NO_CORRELATION
    step: Step | None = None
    warnings: Warnings = ()


class Measurements(NamedTuple):
    """The latency in ms and the cost in micro-USD that a result adds to its provider's figures; None: not reported."""

    latency_ms: int | None = None
    cost_microusd: int | None = None


NO_MEASUREMENTS = Measurements()


def taught(result: ExecResult) -> Measurements:
    """The measurements of a result that figures learn from.

    Figures learn from successes only: otherwise a provider that fails fast would attract tasks. Failures count for the
    breaker instead.
    """
    if result.status is not ResultStatus.SUCCESS:
        return NO_MEASUREMENTS
    return Measurements(result.latency_ms, result.cost_microusd)


class BreakerVerdict(Enum):
    """How a result counts for its provider's breaker. The numbers are the same in lua/settle.lua."""

    SUCCESS = 1
    FAILURE = 2
    NEITHER = 3


_FAULTS = frozenset({"TIMEOUT", "CONNECTION_ERROR", "PROVIDER_UNAVAILABLE", "SERVER_ERROR"})
_is_server_fault = re.compile(r"(?:HTTP_)?5(?:[0-9]{2}|XX)").fullmatch


def breaker_verdict(result: ExecResult) -> BreakerVerdict:
    """Classify a result for the breaker. An error counts as a failure only if the provider caused it, not the task."""
    match result.status:
        case ResultStatus.SUCCESS:
            return BreakerVerdict.SUCCESS
        case ResultStatus.TIMEOUT:
            return BreakerVerdict.FAILURE
        case ResultStatus.CANCELLED:
            return BreakerVerdict.NEITHER
        case ResultStatus.ERROR:
            code = (result.error_code or "").upper()
            is_providers_fault = code in _FAULTS or _is_server_fault(code) is not None
            return BreakerVerdict.FAILURE if is_providers_fault else BreakerVerdict.NEITHER


class AckStatus(StrEnum):
    """The status in a worker's ack. Every status but `accepted` starts the next attempt at once."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ERROR = "error"


class ExecAck(Struct, frozen=True):
    """A worker's ack of an assignment. `message`: the message or the reason that the worker gave."""

    assignment_id: bytes
    status: AckStatus
    message: str | None = None
    request_id: str | None = None
    tenant_id: str | None = None
    trace_id: str | None = None
    warnings: Warnings = ()


class WorkerState(StrEnum):
    """The state that a worker reports in its heartbeat."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    STOPPED = "stopped"


class Heartbeat(Struct, frozen=True):
    """A worker's heartbeat. `load` is in [0, 1]; `timestamp` is the worker's own text (RFC 3339)."""

    worker_id: str
    status: WorkerState
    load: float | None = None
    timestamp: str | None = None
    warnings: Warnings = ()


class WorkerDeadLetter(Struct, frozen=True):
    """A worker's report of a message that it could not handle.

    `reason`: PARSE_ERROR, DECODE_ERROR or PUBLISH_ERROR, or any other text that the worker sent.
    """

    reason: str
    payload_ref: str | None = None
    timestamp: JsonValue = None
    warnings: Warnings = ()
