"""Context, constraints and options of a decide request."""

from router.domain.ids import MAX_ATTEMPT
from router.domain.json import JsonObject
from router.domain.request import DEFAULT_OPTIONS, NO_CONSTRAINTS, NO_STEP, Constraints, Options, Step
from router.wire.fields import MAX_MS, MAX_TOKENS, client_ip, flag, microusd, table, text, whole
from router.wire.problems import Problems, named
from router.wire.subjects import ASSIGN, is_result_subject, is_work_subject

MAX_RETRIES = 1_000_000
LONGEST_PRIORITY = 64
_RETRIES = "retry_attempts"
# Empty, they are as good as absent.
_OF_CALLER = frozenset(("session_id", "user_id", "status", "current_provider", "ip_address"))


Context = tuple[JsonObject, str | None, str | None, Step]


def context_of(value: object, header_ip: str | None, found: Problems) -> Context:
    """The caller's context, and in it the user_id, the client's address, and the step.

    The address in the header `x-client-ip` (a gateway's word) wins over context.ip_address.
    """
    if value is None and header_ip is None:
        return {}, None, None, NO_STEP
    values: JsonObject = value if type(value) is dict else table(found, "context", value) or {}
    if "" in values.values():
        values = {k: v for k, v in values.items() if v != "" or k not in _OF_CALLER}
    get = values.get
    if (session := get("session_id")) is not None:
        text(found, "context.session_id", session)
    if (user := get("user_id")) is not None:
        user = text(found, "context.user_id", user)
    if (address := get("ip_address")) is not None:
        address = client_ip(found, "context.ip_address", address)
    if header_ip is not None:
        address = client_ip(found, "header x-client-ip", header_ip)
    return values, user, address, _step(values, found)


def _step(values: JsonObject, found: Problems) -> Step:
    """Where the caller is in its own fallback chain: raising any `retry_attempts*` makes a new step, so all count."""
    status: object = values.get("status")
    current = values.get("current_provider")
    retries = 0
    for key in values:
        if key[:14] == _RETRIES:  # Half the time of startswith.
            retries += _retries(values[key], key, found)
    if status is None and current is None and not retries:
        return NO_STEP
    if type(status) is int:
        status = str(status)
    return Step(
        text(found, "context.status", status),
        text(found, "context.current_provider", current),
        retries,
    )


def _retries(value: object, key: str, found: Problems) -> int:
    if type(value) is str and len(value) <= 9 and value.isascii() and value.isdigit():
        value = int(value)  # A protobuf context holds strings only.
    return whole(found, f"context.{key}", value, 0, MAX_RETRIES) or 0


def constraints_of(value: object, found: Problems) -> Constraints:
    """The bounds that a provider must keep to."""
    if value is None:
        return NO_CONSTRAINTS
    values: JsonObject = value if type(value) is dict else table(found, "constraints", value) or {}
    return Constraints(
        whole(found, "constraints.max_latency_ms", values.get("max_latency_ms"), 1, MAX_MS),
        microusd(found, "constraints.max_cost", values.get("max_cost")),
    )


def options_of(value: object, prefixes: tuple[str, ...], longest_deadline_ms: int, found: Problems) -> Options:
    """The caller's wishes; a bad one is refused, never changed."""
    if value is None:
        return DEFAULT_OPTIONS
    values: JsonObject = value if type(value) is dict else table(found, "options", value) or {}
    get = values.get
    tokens = cost = attempts = backoff = None
    if (part := get("estimate")) is not None:
        tokens, cost = _estimate(part, found)
    if (part := get("retry")) is not None:
        attempts, backoff = _retry(part, found)
    if (deadline := get("deadline_ms")) is not None:
        deadline = whole(found, "options.deadline_ms", deadline, 1, longest_deadline_ms)
    if (priority := get("priority")) is not None:
        priority = text(found, "options.priority", priority, LONGEST_PRIORITY)
    if (subject := get("result_subject")) is not None:
        subject = _result_subject(subject, prefixes, found)
    if (explain := get("explain")) is not None:
        explain = flag(found, "options.explain", explain)
    if (meter := get("meter")) is not None:
        meter = flag(found, "options.meter", meter)
    return Options(tokens, cost, deadline, attempts, backoff, priority, subject, explain or False, meter or False)


def _estimate(value: object, found: Problems) -> tuple[int | None, int | None]:
    values: JsonObject = value if type(value) is dict else table(found, "options.estimate", value) or {}
    get = values.get
    return (
        whole(found, "options.estimate.tokens", get("tokens"), 0, MAX_TOKENS),
        microusd(found, "options.estimate.cost", get("cost")),
    )


def _retry(value: object, found: Problems) -> tuple[int | None, int | None]:
    get = (table(found, "options.retry", value) or {}).get
    return (
        whole(found, "options.retry.max_attempts", get("max_attempts"), 1, MAX_ATTEMPT),
        whole(found, "options.retry.backoff_ms", get("backoff_ms"), 0, MAX_MS),
    )


def _result_subject(value: object, prefixes: tuple[str, ...], found: Problems) -> str | None:
    subject = text(found, "options.result_subject", value)
    if subject is not None and not is_result_subject(subject, prefixes):
        allowed = " or ".join(("_INBOX.", *prefixes))
        found.add("options.result_subject", "is not a subject that results may go to", f"a literal below {allowed}")
    return subject


def assignment_subject_of(value: object, found: Problems) -> str | None:
    """Where the assignment is to go; None: the usual subject, also when it was named."""
    subject = text(found, "assignment_subject", value)
    if subject is None or subject == ASSIGN:
        return None
    if not is_work_subject(subject):
        found.add(
            "assignment_subject",
            f"is {named(subject)} that no assignment may go to",
            "a literal under caf.exec., not the router's own, not ending in .ack or .dlq",
        )
    return subject
