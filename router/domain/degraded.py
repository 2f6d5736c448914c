"""The parts of a pod that may be off while the pod serves requests: what `degraded` of /readyz lists."""

from enum import StrEnum


class Degradable(StrEnum):
    """A part that can be off. Everything else of the pod works."""

    REPLY_STREAMS = "reply_streams"
    """The list of all streams cannot be read: a reply subject that a foreign stream covers is not refused."""
    BOUND_QUERIES = "bound_queries"
    """`get_decision.<tenant>`: NATS does not permit the subscription. The plain subject is answered."""
    QUERIES = "queries"
    """`get_decision`: NATS does not permit the subscription."""
    STATUS = "status"
    """The backpressure status over NATS: the subscription is not permitted. /metrics has it."""
    ADMIN = "admin"
    """Admin acts over NATS: the subscription is not permitted. The command line works on Redis."""
    ANNOUNCEMENTS = "announcements"
    """Policy changes are not heard at once: the subscription is not permitted. The next decision notices a change."""
    WORKER_SIGNALS = "worker_signals"
    """Heartbeats or dead letters of workers: the subscription is not permitted."""
    REPLIES = "replies"
    """NATS does not permit replies to inboxes: callers there time out."""
    RESULTS = "results"
    """Results of workers are not received, or not acknowledged. Requests that push are refused while none arrive."""
    ACKS = "acks"
    """Acks of workers are not received, or not acknowledged: deadlines count from the publish."""
    USAGE = "usage"
    """The stream of usage events refuses them: they wait in Redis."""
    EVENTS = "events"
    """The stream of assigned events refuses them: they are not published. Tasks continue."""
    DEAD_LETTERS = "dead_letters"
    """The stream of dead letters refuses them: the messages stay in their own streams and come again."""
    STREAM_CHECKS = "stream_checks"
    """The streams cannot be read: a missing one, or one that covers a request subject, is not noticed."""
    DISPATCH = "dispatch"
    """Pushed tasks: a stream that they need is missing. Requests that push are refused as `unavailable`."""
    ALERTS = "alerts"
    """The stream of alerts is missing: no alert is delivered over NATS. Metrics and the log have them."""
    AUDIT_EXPORT = "audit_export"
    """The stream of exported audit entries is missing: the export waits."""
    STORE_FACTS = "store_facts"
    """INFO of Redis: its memory is not watched, and whether it may evict keys is unknown."""
    EVICTION = "eviction"
    """Redis may evict keys since its policy was changed: lost counters admit too much."""
    STORE_WALKS = "store_walks"
    """Walks over all of Redis: sizes by kind, purges, and lists over all tenants."""
    API = "api"
    """The HTTP API: it is not open, or a changed file cannot be used. Requests over NATS are answered."""
    FUNCTION_LIBRARY = "function_library"
    """Redis functions. Without FCALL or FUNCTION LOAD decisions are the same, and each call costs Redis more. Without
    FUNCTION LIST or DELETE, libraries of versions that are gone stay in Redis.
    """
    STATE_RANGES = "state_ranges"
    """SETRANGE: limits are written as whole states. Decisions are the same, and each call costs Redis more."""


STORE_PARTS = (
    Degradable.STORE_FACTS,
    Degradable.STORE_WALKS,
    Degradable.FUNCTION_LIBRARY,
    Degradable.STATE_RANGES,
)
"""The parts that depend on what Redis allows."""
