"""The messages of a worker: it reads assignments; it writes acks, results, heartbeats and dead letters."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from router.domain.json import JsonObject, JsonValue

ASSIGN_STREAM = "ASSIGN"
ASSIGN_CONSUMER = "workers"


class Executor(Struct, frozen=True):
    """The provider that the router chose."""

    provider_id: str
    endpoint: str | None = None


class JobBody(Struct, frozen=True):
    """The job: its type and its payload, or a reference to the payload."""

    type: str
    payload: dict[str, Any] = {}  # JsonObject is recursive: msgspec cannot build a decoder for it
    payload_ref: str | None = None


class Options(Struct, frozen=True):
    """The options that workers use. `deadline_ms`: how long the provider may take."""

    deadline_ms: int | None = None


class Expected(Struct, frozen=True):
    """The expectation of the decision; cost in USD."""

    expected_cost: float = 0.0


class Assignment(Struct, frozen=True):
    """One attempt of a task. `deadline_at_ms` is Unix time; None: no deadline."""

    version: str
    assignment_id: str
    request_id: str
    tenant_id: str
    executor: Executor
    job: JobBody
    decision: Expected = Expected()
    task_id: str | None = None
    attempt: int = 1
    deadline_at_ms: int | None = None
    trace_id: str | None = None
    options: Options = Options()

    @property
    def timeout_added(self) -> bool:
        """Whether `timeout_ms` of the payload is the router's: it adds the deadline to a payload without one."""
        return self.options.deadline_ms is not None and self.job.payload.get("timeout_ms") == self.options.deadline_ms


class Finished(Struct, frozen=True):
    """The outcome of an attempt. `status` is success, error, timeout or cancelled; cost in USD.

    `tokens`: their number, or their parts by name: input, output, total.
    """

    status: str
    output: JsonValue = None
    error_code: str | None = None
    error_message: str | None = None
    cost: float | None = None
    tokens: int | Mapping[str, int] | None = None


_assignments = msgspec.json.Decoder(Assignment)


def read_assignment(data: bytes) -> Assignment:
    """Decode an assignment.

    :raises msgspec.DecodeError: the bytes are not an assignment; a `msgspec.ValidationError` names the field.
    """
    try:
        return _assignments.decode(data)
    except (UnicodeDecodeError, RecursionError) as fault:
        raise msgspec.DecodeError(str(fault)) from fault


def ack(assignment: Assignment, status: str, *, message: str | None = None) -> bytes:
    """Encode the ack of an assignment: `status` is accepted or rejected, `message` is the reason."""
    body: JsonObject = {
        "assignment_id": assignment.assignment_id,
        "status": status,
        "request_id": assignment.request_id,
        "tenant_id": assignment.tenant_id,
    }
    return _encode(body if message is None else body | {"message": message})


def result(assignment: Assignment, finished: Finished, latency_ms: int, *, now_ms: int) -> bytes:
    """Encode the result of an assignment, without envelope.

    Without a reported cost, a success costs what the decision expected, and a failure costs nothing. An output that is
    not JSON makes the result an error: the attempt must end.
    """
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
        "tokens": dict(finished.tokens) if isinstance(finished.tokens, Mapping) else finished.tokens,
    }
    try:
        return _encode(body | {k: v for k, v in optional.items() if v is not None})
    except (TypeError, ValueError, RecursionError) as e:
        failed = Finished("error", error_code="WORKER_ERROR", error_message=f"the output is not JSON: {e}", cost=cost)
        return result(assignment, failed, latency_ms, now_ms=now_ms)


def _encode(body: JsonObject) -> bytes:
    """Encode, also what JSON cannot hold, such as half a character: the router reads it leniently.

    :raises TypeError: a value is not JSON; ValueError and RecursionError likewise.
    """
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return json.dumps(body).encode()


def heartbeat(worker_id: str, *, status: str, load: float) -> bytes:
    """Encode a heartbeat: `status` is idle, busy, draining or stopped, `load` is 0..1."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data: JsonObject = {"worker_id": worker_id, "timestamp": stamp, "status": status, "load": round(load, ndigits=3)}
    return orjson.dumps({"version": "v1", "kind": "heartbeat", "data": data})


def dead_letter(reason: str, *, payload_ref: str, now_ms: int) -> bytes:
    """Encode the dead letter of an unreadable assignment, or of a result that no stream stored.

    `payload_ref` names the message: stream and sequence of the assignment, or its assignment_id; there is no copy.
    """
    data: JsonObject = {"reason": reason, "payload_ref": payload_ref, "ts": now_ms}
    return orjson.dumps({"version": "v1", "kind": "dead_letter", "data": data})
