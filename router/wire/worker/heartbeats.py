"""Heartbeats and dead letters of workers: bytes → `domain.tasks.result`."""

from router.domain.tasks.result import Heartbeat, WorkerDeadLetter, WorkerState
from router.wire.fields import MAX_REFERENCE_CHARS, text
from router.wire.problems import Problems, Rejected
from router.wire.worker.envelope import enum_member, open_envelope

MAX_BYTES = 64 * 1024
_MAX_REASON_CHARS = 128


def decode_heartbeat(data: bytes) -> Heartbeat | Rejected:
    """Decode a worker's heartbeat, bare or enveloped. Never raises, whatever the bytes."""
    problems, warnings = Problems(), Problems()
    fields = open_envelope(data, "heartbeat", MAX_BYTES, warnings)
    if isinstance(fields, Rejected):
        return fields
    get = fields.get
    worker_id = text(problems, "worker_id", get("worker_id"))
    if get("worker_id") is None:
        problems.add("worker_id", message="is missing", hint="send the id of the worker")
    status = enum_member(problems, "status", get("status"), WorkerState, warnings)
    load, timestamp = get("load"), get("timestamp")
    if load is not None and (isinstance(load, bool) or not isinstance(load, int | float) or not 0 <= load <= 1):
        problems.add(
            "load", message="is not a number from 0 to 1", hint="send the share of the worker's capacity that is in use"
        )
    if problems or worker_id is None or status is None:
        return problems.rejected()
    return Heartbeat(
        worker_id,
        status,
        float(load) if isinstance(load, int | float) else None,
        timestamp if isinstance(timestamp, str) else None,
        warnings.warnings,
    )


def decode_worker_dead_letter(data: bytes) -> WorkerDeadLetter | Rejected:
    """Decode a worker's dead letter, bare or enveloped. Never raises, whatever the bytes."""
    problems, warnings = Problems(), Problems()
    fields = open_envelope(data, "dead_letter", MAX_BYTES, warnings)
    if isinstance(fields, Rejected):
        return fields
    get = fields.get
    reason = text(problems, "reason", get("reason"), _MAX_REASON_CHARS)
    if get("reason") is None:
        problems.add("reason", message="is missing", hint="send PARSE_ERROR, DECODE_ERROR or PUBLISH_ERROR")
    payload_ref = text(problems, "payload_ref", get("payload_ref"), MAX_REFERENCE_CHARS)
    if problems or reason is None:
        return problems.rejected()
    return WorkerDeadLetter(reason, payload_ref, get("ts"), warnings.warnings)
