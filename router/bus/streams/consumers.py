"""The durable consumers of a fleet, and the request subjects that no stream may cover."""

from collections.abc import Sequence

from router.bus.streams.specs import ConsumerSpec
from router.wire import subjects

WORKERS = "workers"
ACKS = "router-fleet-acks"
RESULTS = "router-fleet-results"

REQUEST_SUBJECTS = (
    subjects.DECIDE,
    f"{subjects.DECIDE}.>",
    subjects.GET_DECISION,
    f"{subjects.GET_DECISION}.>",
    subjects.BACKPRESSURE,
    f"{subjects.ADMIN}.>",
    f"{subjects.EXTENSION}.>",
)


def consumers(
    *, assign: str, ack: str, result: str, assign_subjects: Sequence[str] = (), assign_filter: Sequence[str] = ()
) -> tuple[ConsumerSpec, ConsumerSpec, ConsumerSpec]:
    """Return the consumers: one that all pull workers share, and two that all pods share, for acks and for results.

    The arguments are stream names, the further subjects of assignments, and those that workers get; empty: all.
    """
    work = ConsumerSpec(stream=assign, name=WORKERS, subjects=(subjects.ASSIGN, *assign_subjects))
    if assign_filter:
        work = ConsumerSpec(stream=assign, name=WORKERS, subjects=tuple(assign_filter), filtered=True)
    return (
        work,
        ConsumerSpec(stream=ack, name=ACKS, subjects=(subjects.ACK,), added=(subjects.every_tenant(subjects.ACK),)),
        ConsumerSpec(
            stream=result, name=RESULTS, subjects=(subjects.RESULT,), added=(subjects.every_tenant(subjects.RESULT),)
        ),
    )
