"""The durable consumers of a fleet, and the subjects that no stream may cover."""

from router.bus.stream_specs import ConsumerSpec
from router.wire import subjects

WORKERS = "workers"
ACKS = "router-fleet-acks"
RESULTS = "router-fleet-results"

REQUEST_SUBJECTS = (
    subjects.DECIDE,
    f"{subjects.DECIDE}.>",
    subjects.GET_DECISION,
    subjects.BACKPRESSURE,
    f"{subjects.ADMIN}.>",
    f"{subjects.EXTENSION}.>",
)


def consumers(*, assign: str, ack: str, result: str) -> tuple[ConsumerSpec, ConsumerSpec, ConsumerSpec]:
    """`workers`, shared by all pull workers, and the fleet's own for acks and results, shared by all pods.

    The arguments are the names of the streams.
    """
    return ConsumerSpec(assign, WORKERS), ConsumerSpec(ack, ACKS), ConsumerSpec(result, RESULTS)
