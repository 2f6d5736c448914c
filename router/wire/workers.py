"""Workers' signs of life and dead letters: bytes → `domain.result`."""

from router.domain.result import Heartbeat, WorkerDeadLetter, WorkerState
from router.wire.envelope import body_of, word
from router.wire.fields import LONGEST_REFERENCE, text
from router.wire.problems import Problems, Rejected, named

MAX_BYTES = 64 * 1024
_LONGEST_REASON = 128


def decode_heartbeat(data: bytes) -> Heartbeat | Rejected:
    """A worker's sign of life, bare or enveloped. Never raises, whatever the bytes."""
    body = body_of(data, "heartbeat", MAX_BYTES)
    if isinstance(body, Rejected):
        return body
    found = Problems()
    get = body.fields.get
    worker_id = text(found, "worker_id", get("worker_id"))
    if get("worker_id") is None:
        found.add("worker_id", "is missing", "name the worker")
    status = word(found, "status", get("status"), WorkerState)
    load, at = get("load"), get("timestamp")
    if load is not None and (isinstance(load, bool) or not isinstance(load, int | float) or not 0 <= load <= 1):
        found.add("load", f"is {named(load)} that is no share", "a number from 0 to 1")
    if found or worker_id is None or status is None:
        return found.rejected()
    return Heartbeat(
        worker_id,
        status,
        float(load) if isinstance(load, int | float) else None,
        at if isinstance(at, str) else None,
    )


def decode_worker_dead_letter(data: bytes) -> WorkerDeadLetter | Rejected:
    """What a worker could not handle, bare or enveloped. Never raises, whatever the bytes."""
    body = body_of(data, "dead_letter", MAX_BYTES)
    if isinstance(body, Rejected):
        return body
    found = Problems()
    get = body.fields.get
    reason = text(found, "reason", get("reason"), _LONGEST_REASON)
    if get("reason") is None:
        found.add("reason", "is missing", "PARSE_ERROR, DECODE_ERROR or PUBLISH_ERROR")
    payload_ref = text(found, "payload_ref", get("payload_ref"), LONGEST_REFERENCE)
    if found or reason is None:
        return found.rejected()
    return WorkerDeadLetter(reason, payload_ref, get("ts"))
