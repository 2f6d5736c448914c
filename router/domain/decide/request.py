"""A decide request after normalisation, independent of its shape on the wire."""

from msgspec import Struct

from router.domain.defects import Warnings
from router.domain.json import JsonObject, JsonValue


class Constraints(Struct, frozen=True):
    """The caller's bounds on the provider's expected latency and cost; None: no bound. Cost is in micro-USD."""

    max_latency_ms: int | None = None
    max_cost_microusd: int | None = None


class Options(Struct, frozen=True):
    """The caller's options for this task; None: the default of the policy or the fleet.

    `priority` is passed on to workers as it was sent.
    """

    estimate_tokens: int | None = None
    estimate_cost_microusd: int | None = None
    deadline_ms: int | None = None
    max_attempts: int | None = None
    backoff_ms: int | None = None
    priority: str | float | None = None
    result_subject: str | None = None
    explain: bool = False
    meter: bool = False


NO_CONSTRAINTS = Constraints()
DEFAULT_OPTIONS = Options()


class Correlation(Struct, frozen=True):
    """Ids that are copied into every message that this request causes; None: the caller gave none."""

    trace_id: str | None = None
    run_id: str | None = None
    flow_id: str | None = None
    step_id: str | None = None
    traceparent: str | None = None


NO_CORRELATION = Correlation()


class Step(Struct, frozen=True):
    """The caller's step in a fallback chain of its own (`context.status`, `current_provider`, `retry_attempts`)."""

    status: str | None = None
    current_provider: str | None = None
    retry_attempts: int = 0

    @property
    def failed(self) -> bool:
        """Whether the caller reports that its last try failed."""
        return self.status is not None and self.status.lower() != "success"

    @property
    def key(self) -> str:
        """The text that distinguishes this step from the caller's other steps; empty: no step was given."""
        if self.status is None and self.current_provider is None and not self.retry_attempts:
            return ""
        return f"{self.status or ''}\x1f{self.current_provider or ''}\x1f{self.retry_attempts}"


NO_STEP = Step()


class DecideRequest(Struct, frozen=True):
    """One question: who runs this task for this tenant?

    `fingerprint` is a hash of everything that may change the answer, and of nothing else. `payload` is None if the task
    has a `payload_ref`. `warnings`: defects that did not cost the request. `by_message`: it has a message_id and the
    shape message or input, whose gateways look up a decision by the message_id alone. `user_id` and `client_ip` are
    what the audit has (`identity.AuditIdentity`); `owner_id`: the user as sent, for limits, where `user_id` is not.
    """

    tenant_id: str
    request_id: str
    policy_id: str
    task_type: str
    fingerprint: bytes
    payload: JsonValue = None
    payload_ref: str | None = None
    context: JsonObject = {}
    metadata: JsonObject = {}
    idempotency_key: str | None = None
    message_id: str | None = None
    user_id: str | None = None
    client_ip: str | None = None
    step: Step = NO_STEP
    constraints: Constraints = NO_CONSTRAINTS
    options: Options = DEFAULT_OPTIONS
    correlation: Correlation = NO_CORRELATION
    push_assignment: bool = False
    assignment_subject: str | None = None
    warnings: Warnings = ()
    by_message: bool = False
    owner_id: str | None = None
