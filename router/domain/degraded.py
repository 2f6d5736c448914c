"""The parts of a pod that may be off while the pod serves requests: what `degraded` of /readyz lists."""

from enum import StrEnum


class Degradable(StrEnum):
    """A part that can be off. Everything else of the pod works."""

    DISPATCH = "dispatch"
    """Pushed tasks: a stream that they need is missing. Requests that push are refused as `unavailable`."""
