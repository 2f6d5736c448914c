"""Packed values of dispatched tasks (see `packing`): the delivery record, and the final result until it is published.

task        B 1, B state, B attempt, H why, d charged_ms, d deadline_at_ms, 16s decision_id, 8s provider entry,
            B reason, H length, offer, msgpack of TaskFacts
final       B 2, H length, subject, body; it replaces the work item, which has format 1
kept final  B 1, body
"""

from struct import Struct as Layout

from msgspec import msgpack

from router.domain.decide.decision import Reason
from router.domain.tasks.task import Final, TaskFacts, TaskRecord, TaskState
from router.store.packing import DAMAGE, FORMAT, FormatError, offer_in

_TASK = Layout(">BBBHdd16s8sBH")
_FINAL = Layout(">BH")
FINAL_FORMAT = 2

_pack_facts = msgpack.Encoder().encode
_unpack_facts = msgpack.Decoder(TaskFacts).decode


def task_facts(facts: TaskFacts) -> bytes:
    """The part of a delivery record that is the same for all attempts."""
    return _pack_facts(facts)


def task_record(raw: bytes) -> TaskRecord:
    """Decode a delivery record.

    :raises FormatError: not a format that this version reads, or damaged.
    """
    try:
        return _task_record(raw)
    except DAMAGE as fault:
        raise FormatError(f"delivery record: {fault}") from fault


def _task_record(raw: bytes) -> TaskRecord:
    if raw[0] != FORMAT:
        raise FormatError(f"delivery record of format {raw[0]}")
    _, state, attempt, why, charged, deadline, decision, entry, reason, size = _TASK.unpack_from(raw)
    (provider_id, latency, cost), _ = offer_in(raw, _TASK.size)
    facts = _unpack_facts(raw[_TASK.size + size :])
    return TaskRecord(
        TaskState(state),
        attempt,
        int(charged),
        int(deadline),
        decision,
        entry,
        provider_id,
        Reason(reason),
        latency,
        cost,
        facts,
        why,
    )


def final(result: Final) -> bytes:
    """The stored form of a final result, until it is published."""
    subject = result.subject.encode()
    return _FINAL.pack(FINAL_FORMAT, len(subject)) + subject + (result.body if result.spare is None else result.spare)


def final_in(raw: bytes) -> Final:
    """Decode a final result that is not published yet.

    :raises FormatError: not a format that this version reads, or damaged.
    """
    try:
        if raw[0] != FINAL_FORMAT:
            raise FormatError(f"final result of format {raw[0]}")
        end = _FINAL.size + _FINAL.unpack_from(raw)[1]
        return Final(raw[_FINAL.size : end].decode(), raw[end:])
    except DAMAGE as fault:
        raise FormatError(f"final result: {fault}") from fault


def kept_final(body: bytes) -> bytes:
    """The stored form of a final result that was published and is kept for repeats."""
    return b"%c%b" % (FORMAT, body)


def kept_final_in(raw: bytes) -> bytes | None:
    """The body of a kept final result; None: not a format that this version reads. The tombstone has the end too."""
    return raw[1:] if raw[:1] == bytes([FORMAT]) else None
