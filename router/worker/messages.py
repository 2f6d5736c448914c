"""What the worker reads and writes: assignment in; ack, result, heartbeat and dead letter out."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from router.domain.json import JsonObject, JsonValue

ASSIGN_STREAM = "ASSIGN"
ASSIGN_CONSUMER = "workers"


class Executor(Struct, frozen=True):
    """Who was chosen to run it."""

    provider_id: str
    endpoint: str | None = None


class Work(Struct, frozen=True):
    """What to run."""

    type: str
    payload: dict[str, Any] = {}  # JsonObject is recursive: msgspec cannot build a decoder for it
    payload_ref: str | None = None


class Expected(Struct, frozen=True):
    """What the decision expected of the provider; cost in USD."""

    expected_cost: float = 0.0


class Assignment(Struct, frozen=True):
    """One attempt of one task. `deadline_at_ms` is Unix time; None: no deadline was given."""

    version: str
    assignment_id: str
    request_id: str
    tenant_id: str
    executor: Executor
    job: Work
    decision: Expected = Expected()
    task_id: str | None = None
    attempt: int = 1
    deadline_at_ms: int | None = None
    trace_id: str | None = None


class Finished(Struct, frozen=True):
    """How a task ended. `status` is success, error, timeout or cancelled; cost in USD."""

    status: str
    output: JsonValue = None
    error_code: str | None = None
    error_message: str | None = None
    cost: float | None = None
    tokens: int | None = None


_assignments = msgspec.json.Decoder(Assignment)


def read_assignment(data: bytes) -> Assignment:
    """The assignment in a message.

    :raises msgspec.DecodeError: it is none (`msgspec.ValidationError` names the field).
    """
    return _assignments.decode(data)


def receipt(assignment: Assignment, status: str, message: str | None = None) -> bytes:
    """The ack that says whether a worker does it: `status` is accepted or rejected, `message` says why."""
    body: JsonObject = {
        "assignment_id": assignment.assignment_id,
        "status": status,
        "request_id": assignment.request_id,
        "tenant_id": assignment.tenant_id,
    }
    return orjson.dumps(body if message is None else body | {"message": message})


def result(assignment: Assignment, finished: Finished, latency_ms: int, now_ms: int) -> bytes:
    """The bare result of an assignment. A failed task costs nothing unless it says otherwise."""
    cost = finished.cost
    if cost is None:
        cost = assignment.decision.expected_cost if finished.status == "success" else 0.0
    body: JsonObject = {
        "version": "1",
        "assignment_id": assignment.assignment_id,
        "request_id": assignment.request_id,
        "tenant_id": assignment.tenant_id,
        "status": finished.status,
        "provider_id": assignment.executor.provider_id,
        "job": {"type": assignment.job.type},
        "latency_ms": latency_ms,
        "cost": cost,
        "timestamp": now_ms,
    }
    optional: JsonObject = {
        "trace_id": assignment.trace_id,
        "output": finished.output,
        "error_code": finished.error_code,
        "error_message": finished.error_message,
        "tokens": finished.tokens,
    }
    return orjson.dumps(body | {k: v for k, v in optional.items() if v is not None})


def heartbeat(worker_id: str, status: str, load: float) -> bytes:
    """A sign of life; `status` is idle, busy, draining or stopped, `load` is 0..1."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data: JsonObject = {"worker_id": worker_id, "timestamp": stamp, "status": status, "load": round(load, 3)}
    return orjson.dumps({"version": "v1", "kind": "heartbeat", "data": data})


def dead_letter(reason: str, payload_ref: str, now_ms: int) -> bytes:
    """A message that no worker can use; `payload_ref` says where it lies, the payload itself is not copied."""
    data: JsonObject = {"reason": reason, "payload_ref": payload_ref, "ts": now_ms}
    return orjson.dumps({"version": "v1", "kind": "dead_letter", "data": data})
