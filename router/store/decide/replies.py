"""Replies of `decide` → outcomes."""

from collections.abc import Callable

from router.domain.decide.decision import PinState, Reason
from router.domain.decide.outcome import (
    NOTHING_OBSERVED,
    Admitted,
    Busy,
    Conflict,
    LimitHit,
    NoCandidate,
    Outcome,
    Replay,
    RowFault,
    TenantOff,
)
from router.domain.ids import name_in, partition_in
from router.store.packing import DAMAGE, FormatError, remembered, seen
from router.store.scripts import layouts

ADMITTED, REPLAY, CONFLICT, LIMITED, NONE, LATE, OFF, FAULT, BUSY, UNRECORDED = range(10)
DECIDE_RETURNS = {
    ADMITTED: "admitted",
    REPLAY: "replay",
    CONFLICT: "conflict",
    LIMITED: "limited",
    NONE: "none",
    LATE: "late",
    OFF: "off",
    FAULT: "fault",
    BUSY: "busy",
    UNRECORDED: "unrecorded",
}
HEAD = layouts.REPLY.head
BODY = HEAD.size
_ADMITTED = layouts.ADMITTED.head
_LIMITED = layouts.LIMITED.head
_NONE = layouts.NO_CANDIDATE.head
_BUSY = layouts.BUSY.head
_REASONS = {r.value: r for r in Reason}
_PINS = {p.value: p for p in PinState}


def _wait(ms: float) -> int | None:
    return None if ms < 0 else int(ms)


def _admitted(reply: bytes, decision: bytes) -> Outcome:
    _, _, _, index, reason, pin_state, shadows, verdicts = _ADMITTED.unpack_from(reply)
    verdicts_end = _ADMITTED.size + verdicts
    shadows_end = verdicts_end + shadows
    return Admitted(
        index,
        _REASONS[reason],
        reply[_ADMITTED.size : verdicts_end],
        _PINS[pin_state],
        decision,
        tuple(reply[verdicts_end:shadows_end]),
        seen(reply, shadows_end) if shadows_end < len(reply) else NOTHING_OBSERVED,
    )


def _limited(reply: bytes, _: bytes) -> Outcome:
    charge, wait = _LIMITED.unpack_from(reply, BODY)
    at = BODY + _LIMITED.size
    return LimitHit(charge, _wait(wait), seen(reply, at) if at < len(reply) else NOTHING_OBSERVED)


def _unrecorded(reply: bytes, _: bytes) -> Outcome:
    charge, wait = _LIMITED.unpack_from(reply, BODY)
    return LimitHit(charge, _wait(wait), recorded=False)


def _none(reply: bytes, _: bytes) -> Outcome:
    wait, count = _NONE.unpack_from(reply, BODY)
    at = BODY + _NONE.size
    end = at + count
    return NoCandidate(reply[at:end], _wait(wait), seen(reply, end) if end < len(reply) else NOTHING_OBSERVED)


def _replay(reply: bytes, decision: bytes) -> Outcome:
    try:
        return Replay(remembered(reply[BODY:], partition_in(decision), name_in(decision)))
    except FormatError as fault:
        return RowFault(str(fault))


_READERS: dict[int, Callable[[bytes, bytes], Outcome]] = {
    ADMITTED: _admitted,
    REPLAY: _replay,
    CONFLICT: lambda _reply, _decision: Conflict(),
    LIMITED: _limited,
    UNRECORDED: _unrecorded,
    NONE: _none,
    OFF: lambda _reply, _decision: TenantOff(),
    BUSY: lambda reply, _decision: Busy(max(0, int(_BUSY.unpack_from(reply, BODY)[0]))),
    FAULT: lambda reply, _decision: RowFault(reply[BODY:].decode(errors="replace")),
}


def outcome(reply: bytes, code: int, decision: bytes) -> Outcome:
    """The outcome of one row. `decision` is the id that the row proposed; a replay has the stored one.

    A reply that cannot be read is a fault of this row only.
    """
    try:
        return _READERS[code](reply, decision)
    except (*DAMAGE, KeyError) as fault:
        return RowFault(f"its reply cannot be read: {fault!r}")
