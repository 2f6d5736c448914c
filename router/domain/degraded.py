"""The parts of a pod that may be off while the pod serves requests: what `degraded` of /readyz lists."""

from enum import StrEnum


class Degradable(StrEnum):
    """A part that can be off. Everything else of the pod works."""

    REPLY_STREAMS = "reply_streams"
    """The list of all streams cannot be read: a reply subject that a foreign stream covers is not refused."""
    BOUND_QUERIES = "bound_queries"
    """`get_decision.<tenant>`: NATS does not permit the subscription. The plain subject is answered."""
    DISPATCH = "dispatch"
    """Pushed tasks: a stream that they need is missing. Requests that push are refused as `unavailable`."""
    ALERTS = "alerts"
    """The stream of alerts is missing: alerts reach nobody over NATS. Metrics and the log have them."""
    AUDIT_EXPORT = "audit_export"
    """The stream of exported audit entries is missing: the export waits."""
    STORE_FACTS = "store_facts"
    """INFO of Redis: its memory is not watched, and whether it may evict keys is unknown."""
    STORE_WALKS = "store_walks"
    """Walks over all of Redis: sizes by kind, purges, and lists over all tenants."""
    FUNCTION_LIBRARY = "function_library"
    """Redis functions. Without FCALL or FUNCTION LOAD decisions are the same, and each call costs Redis more. Without
    FUNCTION LIST or DELETE, libraries of versions that are gone stay in Redis.
    """


STORE_PARTS = (Degradable.STORE_FACTS, Degradable.STORE_WALKS, Degradable.FUNCTION_LIBRARY)
"""The parts that depend on what Redis allows."""
