"""Alerts: the closed list of conditions, each with its severity, component, scope and message."""

from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from router.domain.json import JsonObject

FLEET = "fleet"
"""The scope of a condition of the whole fleet."""


class Severity(StrEnum):
    """The severity of an alert; the last token of its NATS subject."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Condition(StrEnum):
    """The condition that an alert reports; the first part of the alert's id."""

    STORE_AWAY = "store_away"
    STORE_MEMORY = "store_memory"
    STORE_KIND_LARGE = "store_kind_large"
    STORE_RESEEDED = "store_reseeded"
    CLOCK_STEPPED = "clock_stepped"
    BUS_AWAY = "bus_away"
    STREAM_COVERS_REQUESTS = "stream_covers_requests"
    STREAM_UNAVAILABLE = "stream_unavailable"
    CONSUMER_STALLED = "consumer_stalled"
    PERMISSION_LOST = "permission_lost"
    CP_STATE_UNUSABLE = "cp_state_unusable"
    CP_STATE_OLD = "cp_state_old"
    CP_FALLBACK_FREQUENT = "cp_fallback_frequent"
    BREAKER_OPENED = "breaker_opened"
    ISOLATION_VIOLATION = "isolation_violation"
    ADMIN_TOKENS_GUESSED = "admin_tokens_guessed"
    API_KEYS_GUESSED = "api_keys_guessed"
    REPLY_SUBJECT_REFUSED = "reply_subject_refused"
    DEAD_LETTERS = "dead_letters"
    USAGE_NOT_DRAINING = "usage_not_draining"
    AUDIT_CUT_INSIDE_AGE = "audit_cut_inside_age"
    AUDIT_EXPORT_BEHIND = "audit_export_behind"
    AUDIT_APPEND_SLOW = "audit_append_slow"
    AUDIT_READ_SLOW = "audit_read_slow"


class Door(StrEnum):
    """The kind of message in which a caller named a tenant other than its own."""

    RESULT = "result"
    RECEIPT = "receipt"
    DECIDE = "decide"
    QUERY = "query"


class Kind(NamedTuple):
    """The fixed properties of a condition. `scope`: what one alert is about.

    `turns`: the condition's state is in the store, so one pod may observe its beginning and another its end. Any other
    condition ends on each pod on which it began.
    """

    severity: Severity
    component: str
    scope: str
    message: str
    turns: bool = False


_C, _W = Severity.CRITICAL, Severity.WARNING

ALERTS: dict[Condition, Kind] = {
    Condition.STORE_AWAY: Kind(
        _C,
        component="store",
        scope=FLEET,
        message="Redis does not answer or refuses every call: on_store_error decides until it recovers",
    ),
    Condition.STORE_MEMORY: Kind(_W, component="store", scope="node", message="Redis is near its memory bound"),
    Condition.STORE_KIND_LARGE: Kind(
        _W, component="store", scope="kind", message="keys of one kind exceed their memory bound"
    ),
    Condition.STORE_RESEEDED: Kind(
        _C, component="store", scope=FLEET, message="the store was empty and was seeded again: it has lost its data"
    ),
    Condition.CLOCK_STEPPED: Kind(_C, "store", FLEET, "Redis' clock stepped by more than a second"),
    Condition.BUS_AWAY: Kind(_C, component="bus", scope=FLEET, message="NATS was unavailable"),
    Condition.STREAM_COVERS_REQUESTS: Kind(
        _C,
        component="bus",
        scope=FLEET,
        message="a stream covers a request/reply subject: its acks reach callers before the replies",
    ),
    Condition.STREAM_UNAVAILABLE: Kind(
        _C, component="dispatch", scope="stream", message="a stream is missing, or stores nothing"
    ),
    Condition.CONSUMER_STALLED: Kind(
        _C, component="bus", scope="consumer", message="a consumer has messages and makes no progress"
    ),
    Condition.PERMISSION_LOST: Kind(
        _C, component="bus", scope="subject", message="NATS no longer permits a subject that pods need"
    ),
    Condition.CP_STATE_UNUSABLE: Kind(
        _W,
        component="gate",
        scope=FLEET,
        message="the CP state is not usable: CP1 baseline, now or when ROUTER_CP_GRACE ends",
    ),
    Condition.CP_STATE_OLD: Kind(
        _W, component="gate", scope=FLEET, message="the CP state file was not updated in time"
    ),
    Condition.CP_FALLBACK_FREQUENT: Kind(
        _C, component="gate", scope=FLEET, message="the CP gate has closed repeatedly"
    ),
    Condition.BREAKER_OPENED: Kind(
        _W, component="breaker", scope="tenant/provider", message="a breaker opened", turns=True
    ),
    Condition.ISOLATION_VIOLATION: Kind(
        _C, component="isolation", scope="tenant, or door", message="a caller named another tenant"
    ),
    Condition.ADMIN_TOKENS_GUESSED: Kind(
        _C,
        component="admin",
        scope=FLEET,
        message="a pod refused 100 wrong admin tokens within a minute: someone may be guessing tokens",
    ),
    Condition.API_KEYS_GUESSED: Kind(
        _C,
        component="api",
        scope=FLEET,
        message="a pod refused 100 wrong API keys within a minute: someone may be guessing keys",
    ),
    Condition.REPLY_SUBJECT_REFUSED: Kind(
        _W,
        component="isolation",
        scope=FLEET,
        message="requests were dropped: the router does not publish to their reply subject",
    ),
    Condition.DEAD_LETTERS: Kind(_W, component="results", scope="subject", message="messages could not be handled"),
    Condition.USAGE_NOT_DRAINING: Kind(_C, component="usage", scope=FLEET, message="usage events wait in the outbox"),
    Condition.AUDIT_CUT_INSIDE_AGE: Kind(
        _W,
        component="audit",
        scope="tenant",
        message="the length bound cuts audit entries that are younger than the retention",
    ),
    Condition.AUDIT_EXPORT_BEHIND: Kind(
        _C,
        component="audit",
        scope="tenant",
        message="the audit export is behind: entries are cut, or soon will be, before they are exported",
    ),
    Condition.AUDIT_APPEND_SLOW: Kind(
        _W, component="audit", scope=FLEET, message="the store calls that write audit records are slow"
    ),
    Condition.AUDIT_READ_SLOW: Kind(_W, component="audit", scope=FLEET, message="reads of audit logs are slow"),
}


class Alert(Struct, frozen=True):
    """One message of an alert. The resolving message has the same `alert_id`, and severity info."""

    alert_id: str
    condition: Condition
    severity: Severity
    component: str
    message: str
    timestamp_ms: int
    metadata: JsonObject = {}
