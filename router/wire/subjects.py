"""The public NATS subjects, and the rules for subjects that a caller may choose."""

import re

DECIDE = "beamline.router.v1.decide"
GET_DECISION = "beamline.router.v1.get_decision"
BACKPRESSURE = "beamline.router.v1.status.backpressure"
ADMIN = "beamline.router.v1.admin"
EXTENSION = "beamline.ext"
ASSIGN = "caf.exec.assign.v1"
ASSIGNED = "caf.exec.assigned.v1"
ACK = "caf.exec.assign.v1.ack"
RESULT = "caf.exec.result.v1"
HEARTBEAT = "caf.status.heartbeat.v1"
WORKER_DEAD_LETTER = "caf.deadletter.v1"
USAGE = "beamline.usage.v1.metered"
ALERT = "beamline.alert.v1"
INBOX = "_INBOX."

_WORK = "caf.exec."
_RESERVED = frozenset({ASSIGNED, ACK, RESULT})
_MAX_CHARS = 255
_literal = re.compile(
    r"[^\s.*>\x00-\x1f\x7f-\x9f\ud800-\udfff]+(?:\.[^\s.*>\x00-\x1f\x7f-\x9f\ud800-\udfff]+)*"
).fullmatch


def is_literal(subject: str) -> bool:
    """Whether a message can be published to the subject: no wildcards, blanks or control characters."""
    return len(subject) <= _MAX_CHARS and _literal(subject) is not None


def is_work_subject(subject: str) -> bool:
    """Whether a caller may choose the subject for assignments: a literal under caf.exec., none of the router's own."""
    return (
        subject.startswith(_WORK)
        and subject not in _RESERVED
        and not subject.endswith((".ack", ".dlq"))
        and is_literal(subject)
    )


def is_result_subject(subject: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a caller may choose the subject for its final result: an inbox, or one with an allowed prefix."""
    return subject.startswith((INBOX, *prefixes)) and is_literal(subject)
