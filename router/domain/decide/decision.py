"""The possible answers to a decide request. Expected answers are values; only bugs raise."""

from enum import IntEnum, StrEnum

from msgspec import Struct

from router.domain.json import JsonObject


class Code(StrEnum):
    """Every error code that a caller can receive."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    POLICY_NOT_FOUND = "policy_not_found"
    EXTENSION_NOT_FOUND = "extension_not_found"
    DECISION_NOT_FOUND = "decision_not_found"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    QUOTA_EXCEEDED = "quota_exceeded"
    SERVICE_OVERLOADED = "service_overloaded"
    UNAVAILABLE = "unavailable"
    VALIDATOR_BLOCKED = "validator_blocked"
    EXTENSION_UNAVAILABLE = "extension_unavailable"
    EXTENSION_TIMEOUT = "extension_timeout"
    EXTENSION_ERROR = "extension_error"
    POST_PROCESSOR_FAILED = "post_processor_failed"
    DECISION_FAILED = "decision_failed"
    INTERNAL = "internal"


class Intake(StrEnum):
    """Why a request was refused before planning; sent as `details.intake_error_code`."""

    SCHEMA_VALIDATION_FAILED = "SCHEMA_VALIDATION_FAILED"
    VERSION_UNSUPPORTED = "VERSION_UNSUPPORTED"
    CORRELATION_FIELDS_INVALID = "CORRELATION_FIELDS_INVALID"
    IDEMPOTENCY_VIOLATION = "IDEMPOTENCY_VIOLATION"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    TENANT_FORBIDDEN = "TENANT_FORBIDDEN"


class Reason(IntEnum):
    """Why this provider was chosen. The numbers are stored and are the same in lua/decide.lua."""

    WEIGHTED = 1
    BEST_SCORE = 2
    STICKY = 3
    RETRY = 4
    FALLBACK = 5
    CIRCUIT_BREAKER_FALLBACK = 6

    @property
    def label(self) -> str:
        """The word on the wire."""
        return self.name.lower()


PRIORITY = {
    Reason.STICKY: 100,
    Reason.WEIGHTED: 50,
    Reason.BEST_SCORE: 50,
    Reason.RETRY: 50,
    Reason.FALLBACK: 25,
    Reason.CIRCUIT_BREAKER_FALLBACK: 20,
}


class Verdict(IntEnum):
    """The verdict on one candidate in the candidate walk. The numbers are stored and the same in lua/decide.lua."""

    NOT_REACHED = 0
    CHOSEN = 1
    BREAKER_OPEN = 2
    PROBES_BUSY = 3
    CONCURRENCY_FULL = 4
    PROVIDER_LIMIT = 5
    DRAINED = 6
    FORCED_OPEN = 7
    CONSTRAINT = 8
    SLOW_START = 9

    @property
    def label(self) -> str:
        """The word in explanations and error details."""
        return self.name.lower()


class PinState(IntEnum):
    """What happened to the pin of the request's session; stored in the audit record."""

    NONE = 0
    """The request has no pin."""
    NEW = 1
    """The session was pinned to the chosen provider."""
    HELD = 2
    """The pinned provider was chosen."""
    LEFT = 3
    """The session was pinned to another provider: the caller reported its provider as failed, or it was not fit."""


class CandidateVerdict(Struct, frozen=True):
    """One candidate with its verdict and its expected latency and cost."""

    provider_id: str
    verdict: Verdict
    expected_latency_ms: int = 0
    expected_cost_microusd: int = 0


class Decision(Struct, frozen=True):
    """The decision. `decision_id` is a UUID text; the cost is in micro-USD."""

    provider_id: str
    reason: Reason
    expected_latency_ms: int
    expected_cost_microusd: int
    policy_id: str
    policy_revision: int
    decision_id: str
    sticky_key: str | None = None
    fallback_used: bool = False
    degraded: bool = False
    metadata: JsonObject = {}


class Decided(Struct, frozen=True):
    """The answer with ok:true. `assignment_id` is a UUID text.

    `replayed`: the request was answered before, and this is the same decision.
    """

    decision: Decision
    replayed: bool = False
    assignment_id: str | None = None
    explain: JsonObject | None = None


class Refused(Struct, frozen=True):
    """The answer with ok:false. `details` is plain JSON and never holds a secret or a payload."""

    code: Code
    message: str
    details: JsonObject = {}


Answer = Decided | Refused
