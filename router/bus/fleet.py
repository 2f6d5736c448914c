"""The streams and consumers of CONTRACTS §1, as one table. Names, ages, windows, bounds and replicas are parameters."""

from collections.abc import Sequence

from msgspec import Struct

from router.bus.stream_specs import ConsumerSpec, StreamSpec

WORKERS = "workers"
ACKS = "router-fleet-acks"
RESULTS = "router-fleet-results"

ASSIGN_SUBJECT = "caf.exec.assign.v1"
ASSIGNED_SUBJECT = "caf.exec.assigned.v1"
ACK_SUBJECT = "caf.exec.assign.v1.ack"
RESULT_SUBJECT = "caf.exec.result.v1"
USAGE_SUBJECT = "beamline.usage.v1.metered"
ALERT_SUBJECTS = "beamline.alert.v1.*"
DEAD_LETTER_SUBJECTS = ("caf.exec.result.v1.dlq", "caf.exec.assign.v1.ack.dlq")
"""Never one under `beamline.router.v1.decide.`: a stream would then answer decide requests."""

_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S


class StreamShape(Struct, frozen=True):
    """What an operator may choose about a stream. `dedup_s` None: the server's default of two minutes."""

    name: str
    max_age_s: int
    dedup_s: int | None = _HOUR_S
    max_bytes: int | None = None


class FleetShape(Struct, frozen=True):
    """All of them, with the values of the contract."""

    assign: StreamShape = StreamShape("ASSIGN", _HOUR_S)
    """Its age should be max(1 h, twice the longest deadline)."""
    assigned: StreamShape = StreamShape("ASSIGNED", _DAY_S)
    ack: StreamShape = StreamShape("ACK", _HOUR_S, None)
    result: StreamShape = StreamShape("RESULT", _HOUR_S, None)
    usage: StreamShape = StreamShape("USAGE", 7 * _DAY_S)
    alert: StreamShape = StreamShape("ALERT", 7 * _DAY_S)
    dead_letter: StreamShape = StreamShape("DLQ", 14 * _DAY_S)
    replicas: int = 1


def streams(
    shape: FleetShape, *, assign_subjects: Sequence[str] = (), dead_letters: Sequence[str] = DEAD_LETTER_SUBJECTS
) -> tuple[StreamSpec, ...]:
    """The specifications. `assign_subjects` are further literal subjects whose work items the ASSIGN stream keeps."""
    table: tuple[tuple[StreamShape, tuple[str, ...]], ...] = (
        (shape.assign, tuple(dict.fromkeys((ASSIGN_SUBJECT, *assign_subjects)))),
        (shape.assigned, (ASSIGNED_SUBJECT,)),
        (shape.ack, (ACK_SUBJECT,)),
        (shape.result, (RESULT_SUBJECT,)),
        (shape.usage, (USAGE_SUBJECT,)),
        (shape.alert, (ALERT_SUBJECTS,)),
        (shape.dead_letter, tuple(dead_letters)),
    )
    return tuple(
        StreamSpec(one.name, subjects, one.max_age_s, one.dedup_s, shape.replicas, one.max_bytes)
        for one, subjects in table
    )


def consumers(shape: FleetShape) -> tuple[ConsumerSpec, ...]:
    """`workers` on ASSIGN, shared by all pull workers, and the fleet's own on ACK and RESULT, shared by all pods."""
    return (
        ConsumerSpec(shape.assign.name, WORKERS),
        ConsumerSpec(shape.ack.name, ACKS),
        ConsumerSpec(shape.result.name, RESULTS),
    )
