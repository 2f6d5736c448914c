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
OF_TENANT = ".tenant."
"""Between the subject of acks or results and the tenant that a bound one belongs to."""
RESULT_PROBE = f"{RESULT}{OF_TENANT}~probe"
"""The subject of probes, which show whether the stream of results stores messages; no tenant has this name."""
CANCEL = "caf.exec.cancel.v1"
HEARTBEAT = "caf.status.heartbeat.v1"
WORKER_DEAD_LETTER = "caf.deadletter.v1"
USAGE = "beamline.usage.v1.metered"
ALERT = "beamline.alert.v1"
POLICY_CHANGED = "beamline.router.internal.v1.policy_changed"
AUDIT = "beamline.audit"
INBOX = "_INBOX."

_WORK = "caf.exec."
_OWN = (
    "caf.exec",
    HEARTBEAT,
    WORKER_DEAD_LETTER,
    DECIDE,
    GET_DECISION,
    "beamline.router.v1.cancel",
    BACKPRESSURE,
    ADMIN,
    POLICY_CHANGED,
    EXTENSION,
    USAGE,
    ALERT,
    AUDIT,
)
"""The fleet's subjects; everything below them is the fleet's, too. Below caf.exec. every subject may carry work."""
_RESERVED = (ASSIGNED, ACK, RESULT, CANCEL)
_MAX_CHARS = 255
_literal = re.compile(
    r"[^\s.*>\x00-\x1f\x7f-\x9f\ud800-\udfff]+(?:\.[^\s.*>\x00-\x1f\x7f-\x9f\ud800-\udfff]+)*"
).fullmatch


def is_literal(subject: str) -> bool:
    """Whether a message can be published to the subject: no wildcards, blanks or control characters."""
    return len(subject) <= _MAX_CHARS and _literal(subject) is not None


def tenant_in(subject: str, *, bound: str) -> str | None:
    """Return the tenant that a subject names after `bound`, dots included; None: it is `bound` itself."""
    return subject[len(bound) + 1 :] if len(subject) > len(bound) else None


def tenant_bound(subject: str, *, open_subject: str) -> str | None:
    """Return the tenant that the subject of an ack or result is bound to, dots included; None: it is the open one."""
    bound = open_subject + OF_TENANT
    return subject[len(bound) :] if subject.startswith(bound) else None


def every_tenant(open_subject: str) -> str:
    """Return the pattern of the subjects of acks or results that are bound to a tenant."""
    return f"{open_subject}{OF_TENANT}>"


def of_tenant(open_subject: str, *, tenant_id: str) -> str:
    """Return the subject of acks or results that is bound to a tenant."""
    return f"{open_subject}{OF_TENANT}{tenant_id}"


def without_tenant(subject: str) -> str:
    """Return the open subject of a bound subject of acks or results; any other subject unchanged."""
    for open_subject in (RESULT, ACK):
        if subject.startswith(open_subject + OF_TENANT):
            return open_subject
    return subject


def is_own(subject: str) -> bool:
    """Whether the subject is one of the fleet's, or below one: only the fleet's own messages belong there."""
    return _is_or_is_below(subject, _OWN)


def _is_or_is_below(subject: str, parents: tuple[str, ...]) -> bool:
    return any(subject.startswith(parent) and subject[len(parent) : len(parent) + 1] in ("", ".") for parent in parents)


def may_reach_own(prefix: str) -> bool:
    """Whether a subject that begins with the prefix (literal tokens, a dot at the end) may be one of the fleet's."""
    return is_own(prefix[:-1]) or any(own.startswith(prefix) for own in _OWN)


def overlap(prefix: str, other: str) -> bool:
    """Whether a subject may begin with both prefixes."""
    return prefix.startswith(other) or other.startswith(prefix)


def is_work_subject(subject: str) -> bool:
    """Whether a caller may choose the subject for assignments: a literal under caf.exec., none of the router's own.

    Acks, results, assigned events and cancellations are the router's own, with everything below them.
    """
    return (
        subject.startswith(_WORK)
        and not _is_or_is_below(subject, _RESERVED)
        and not subject.endswith((".ack", ".dlq"))
        and is_literal(subject)
    )


def is_result_subject(subject: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a caller may choose the subject for its final result: a literal with an allowed prefix."""
    return subject.startswith(prefixes) and is_literal(subject)
