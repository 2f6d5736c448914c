"""Reading of context, constraints and options of a decide request."""

from router.domain.decide.request import DEFAULT_OPTIONS, NO_CONSTRAINTS, NO_STEP, Constraints, Options, Step
from router.domain.ids import MAX_ATTEMPT
from router.domain.json import JsonObject, JsonValue
from router.wire.fields import MAX_MS, MAX_TOKENS, boolean, client_ip, json_object, microusd, text, whole_number
from router.wire.problems import Problems, named
from router.wire.subjects import ASSIGN, is_result_subject, is_work_subject

MAX_RETRIES = 1_000_000
MAX_PRIORITY_CHARS = 64
_RETRIES = "retry_attempts"
_EXACT_BELOW = 2**53
# An empty string in these fields counts as absent.
_ABSENT_WHEN_EMPTY = frozenset(("session_id", "user_id", "status", "current_provider", "ip_address"))


Context = tuple[JsonObject, str | None, str | None, Step]


def context_of(value: object, header_ip: str | None, problems: Problems) -> Context:
    """Read the caller's context, and from it the user_id, the client's address and the fallback step.

    The address in the header `x-client-ip`, which a gateway sets, wins over context.ip_address. A malformed address is
    dropped. A whole number as user_id or session_id is read as text.
    """
    if value is None and header_ip is None:
        return {}, None, None, NO_STEP
    values: JsonObject = value if type(value) is dict else json_object(problems, "context", value) or {}
    if "" in values.values():
        values = {k: v for k, v in values.items() if v != "" or k not in _ABSENT_WHEN_EMPTY}
    get = values.get
    if (session := get("session_id")) is not None:
        if type(session) is not str:
            values = values | {"session_id": (session := _id_as_text(session))}
        text(problems, "context.session_id", session)
    if (user := get("user_id")) is not None:
        if type(user) is not str:
            values = values | {"user_id": (user := _id_as_text(user))}
        user = text(problems, "context.user_id", user)
    if (address := get("ip_address")) is not None:
        address = client_ip(problems, "context.ip_address", address)
        if address is None:
            values = {k: v for k, v in values.items() if k != "ip_address"}
    if header_ip is not None:
        address = client_ip(problems, "header x-client-ip", header_ip)
    return values, user, address, step_of(values, problems)


def _id_as_text(value: JsonValue) -> JsonValue:
    """Convert a whole number that is exact to its text; any other value is returned."""
    if type(value) is float and value.is_integer() and abs(value) < _EXACT_BELOW:
        value = int(value)
    return str(value) if type(value) is int else value


def names_step(context: JsonObject) -> bool:
    """Whether a context has a field of a step, be it that of the first decision (`retry_attempts` 0)."""
    return any(
        v is not None and (k.startswith(_RETRIES) or (v != "" and k in {"status", "current_provider"}))
        for k, v in context.items()
    )


def step_of(values: JsonObject, problems: Problems) -> Step:
    """Read the step of the caller's own fallback chain: raising any `retry_attempts*` makes a new step."""
    status: object = values.get("status")
    current = values.get("current_provider")
    retries = 0
    for key in values:
        if key[:14] == _RETRIES:  # Half the time of startswith.
            retries += _retries(values[key], key, problems)
    if status is None and current is None and not retries:
        return NO_STEP
    if type(status) is int:
        status = str(status)
    return Step(
        text(problems, "context.status", status),
        text(problems, "context.current_provider", current),
        retries,
    )


def _retries(value: object, key: str, problems: Problems) -> int:
    if type(value) is str and len(value) <= 9 and value.isascii() and value.isdigit():
        value = int(value)  # A protobuf context holds only strings.
    return whole_number(problems, f"context.{key}", value, minimum=0, maximum=MAX_RETRIES) or 0


def constraints_of(value: object, problems: Problems) -> Constraints:
    """Read the bounds that a provider must meet."""
    if value is None:
        return NO_CONSTRAINTS
    values: JsonObject = value if type(value) is dict else json_object(problems, "constraints", value) or {}
    return Constraints(
        whole_number(problems, "constraints.max_latency_ms", values.get("max_latency_ms"), minimum=1, maximum=MAX_MS),
        microusd(problems, "constraints.max_cost", values.get("max_cost")),
    )


def options_of(value: object, prefixes: tuple[str, ...], max_deadline_ms: int, problems: Problems) -> Options:
    """Read the caller's options; a bad value is refused, never corrected."""
    if value is None:
        return DEFAULT_OPTIONS
    values: JsonObject = value if type(value) is dict else json_object(problems, "options", value) or {}
    get = values.get
    tokens = cost = attempts = backoff = None
    if (part := get("estimate")) is not None:
        tokens, cost = _estimate(part, problems)
    if (part := get("retry")) is not None:
        attempts, backoff = _retry(part, problems)
    if (deadline := get("deadline_ms")) is not None:
        deadline = whole_number(problems, "options.deadline_ms", deadline, minimum=1, maximum=max_deadline_ms)
    if (priority := get("priority")) is not None:
        priority = _priority(priority, problems)
    if (subject := get("result_subject")) is not None:
        subject = _result_subject(subject, prefixes, problems)
    if (explain := get("explain")) is not None:
        explain = boolean(problems, "options.explain", explain)
    if (meter := get("meter")) is not None:
        meter = boolean(problems, "options.meter", meter)
    return Options(tokens, cost, deadline, attempts, backoff, priority, subject, explain or False, meter or False)


def _priority(value: object, problems: Problems) -> str | float | None:
    """Check a priority: a number, or a text of at most 64 characters."""
    if type(value) is int or type(value) is float:
        return value
    if type(value) is str:
        return text(problems, "options.priority", value, MAX_PRIORITY_CHARS)
    problems.add(
        "options.priority",
        message=f"is {named(value)}",
        hint=f"send a number, or at most {MAX_PRIORITY_CHARS} characters",
    )
    return None


def _estimate(value: object, problems: Problems) -> tuple[int | None, int | None]:
    values: JsonObject = value if type(value) is dict else json_object(problems, "options.estimate", value) or {}
    get = values.get
    return (
        whole_number(problems, "options.estimate.tokens", get("tokens"), minimum=0, maximum=MAX_TOKENS),
        microusd(problems, "options.estimate.cost", get("cost")),
    )


def _retry(value: object, problems: Problems) -> tuple[int | None, int | None]:
    get = (json_object(problems, "options.retry", value) or {}).get
    return (
        whole_number(problems, "options.retry.max_attempts", get("max_attempts"), minimum=1, maximum=MAX_ATTEMPT),
        whole_number(problems, "options.retry.backoff_ms", get("backoff_ms"), minimum=0, maximum=MAX_MS),
    )


def _result_subject(value: object, prefixes: tuple[str, ...], problems: Problems) -> str | None:
    subject = text(problems, "options.result_subject", value)
    if subject is not None and not is_result_subject(subject, prefixes):
        allowed = " or ".join(prefixes)
        problems.add(
            "options.result_subject",
            message="is not allowed as a result subject",
            hint=f"send a subject without wildcards that starts with {allowed}",
        )
    return subject


def assignment_subject_of(value: object, problems: Problems) -> str | None:
    """Read the subject for the assignment; None: the usual subject, also when the request names it."""
    subject = text(problems, "assignment_subject", value)
    if subject is None or subject == ASSIGN:
        return None
    if not is_work_subject(subject):
        problems.add(
            "assignment_subject",
            message="is not allowed as an assignment subject",
            hint="send a subject without wildcards that starts with caf.exec. and does not end in .ack or .dlq; "
            "subjects of acks, results, assigned events and cancellations, and below them, are the router's own",
        )
    return subject
