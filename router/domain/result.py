"""Reports of workers and callers, and the meaning of a result for a breaker."""

import re
from enum import Enum, StrEnum
from typing import NamedTuple

from msgspec import Struct

from router.domain.json import JsonValue
from router.domain.request import NO_CORRELATION, Correlation


class Status(StrEnum):
    """How an attempt ended."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class ExecResult(Struct, frozen=True):
    """A reported result. It names an assignment or, with tenant_id, the decision, the request or its key.

    `provider_id` is information only (in an enveloped result the worker's own id); the delivery record has the true
    one. `assignment_id` and `decision_id` are 16 bytes; costs are micro-USD.
    """

    status: Status
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
    output: JsonValue = None
    error_code: str | None = None
    error_message: str | None = None
    timestamp: JsonValue = None
    correlation: Correlation = NO_CORRELATION


class Taught(NamedTuple):
    """The latency and cost that a result reports for its provider; None: not reported."""

    latency_ms: int | None = None
    cost_microusd: int | None = None


NOTHING_TAUGHT = Taught()


def taught(result: ExecResult) -> Taught:
    """Only a success teaches: quick failures would otherwise attract work. Failures are for the breaker."""
    if result.status is not Status.SUCCESS:
        return NOTHING_TAUGHT
    return Taught(result.latency_ms, result.cost_microusd)


class BreakerVerdict(Enum):
    """The verdict of a result for its provider's breaker; the numbers are the same in lua/settle.lua."""

    SUCCESS = 1
    FAILURE = 2
    NEITHER = 3


_FAULTS = frozenset({"TIMEOUT", "CONNECTION_ERROR", "PROVIDER_UNAVAILABLE", "SERVER_ERROR"})
_is_server_fault = re.compile(r"(?:HTTP_)?5(?:[0-9]{2}|XX)").fullmatch


def breaker_verdict(result: ExecResult) -> BreakerVerdict:
    """Success, failure or neither: an error counts only if it is the provider's, as opposed to the task's."""
    match result.status:
        case Status.SUCCESS:
            return BreakerVerdict.SUCCESS
        case Status.TIMEOUT:
            return BreakerVerdict.FAILURE
        case Status.CANCELLED:
            return BreakerVerdict.NEITHER
        case Status.ERROR:
            code = (result.error_code or "").upper()
            at_fault = code in _FAULTS or _is_server_fault(code) is not None
            return BreakerVerdict.FAILURE if at_fault else BreakerVerdict.NEITHER


class AckStatus(StrEnum):
    """The status of a worker's ack; everything but `accepted` starts the next attempt at once."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ERROR = "error"


class ExecAck(Struct, frozen=True):
    """An ack for an assignment. `message` is the worker's message or reason."""

    assignment_id: bytes
    status: AckStatus
    message: str | None = None
    request_id: str | None = None
    tenant_id: str | None = None
    trace_id: str | None = None


class WorkerState(StrEnum):
    """What a worker is doing."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    STOPPED = "stopped"


class Heartbeat(Struct, frozen=True):
    """A heartbeat. `load` is in [0, 1]; `timestamp` is the worker's own text (RFC 3339)."""

    worker_id: str
    status: WorkerState
    load: float | None = None
    timestamp: str | None = None


class WorkerDeadLetter(Struct, frozen=True):
    """A message that a worker could not handle. `reason` is PARSE_ERROR, DECODE_ERROR or PUBLISH_ERROR, else as
    reported.
    """

    reason: str
    payload_ref: str | None = None
    timestamp: JsonValue = None
