"""What is wrong with an input: everything at once, as one refusal."""

from msgspec import Struct

from router.domain.decision import Code, Intake, Refused
from router.domain.json import JsonObject, JsonValue
from router.errors import Problem

MAX_SHOWN = 50
_LONGEST_PATH = 128
_LONGEST_MESSAGE = 512

# The first of these that was found names the refusal: without the version nobody knows what the other fields mean.
_PRECEDENCE = (
    Intake.PAYLOAD_TOO_LARGE,
    Intake.TENANT_FORBIDDEN,
    Intake.VERSION_UNSUPPORTED,
    Intake.SCHEMA_VALIDATION_FAILED,
    Intake.IDEMPOTENCY_VIOLATION,
    Intake.CORRELATION_FIELDS_INVALID,
)


class Rejected(Struct, frozen=True):
    """Bytes that are not a request (or result, …) of ours. The ids are those that could be read and are well-formed."""

    refused: Refused
    request_id: str | None = None
    trace_id: str | None = None


class Problems(list[tuple[Intake, Problem]]):
    """Collects problems while a document is read; paths are cut to 128 characters, and values are never repeated."""

    def add(self, path: str, message: str, hint: str = "", intake: Intake = Intake.SCHEMA_VALIDATION_FAILED) -> None:
        """Note one problem."""
        self.append((intake, Problem(shown(path, _LONGEST_PATH), message, hint)))

    def rejected(self, request_id: str | None = None, trace_id: str | None = None) -> Rejected:
        """All that was found, as one refusal; there must be at least one."""
        kinds = {intake for intake, _ in self}
        intake = next(i for i in _PRECEDENCE if i in kinds)
        first = next(p for i, p in self if i is intake)
        message = str(first)
        if len(self) > 1:
            message += f"; {len(self) - 1} more in details.problems"
        listed: list[JsonValue] = [{"path": p.path, "message": p.message, "hint": p.hint} for _, p in self[:MAX_SHOWN]]
        details: JsonObject = {"intake_error_code": intake.value, "problems": listed}
        if len(self) > MAX_SHOWN:
            details["truncated"] = True
        code = Code.UNAUTHORIZED if intake is Intake.TENANT_FORBIDDEN else Code.INVALID_REQUEST
        return Rejected(Refused(code, message[:_LONGEST_MESSAGE], details), request_id, trace_id)


def shown(text: str, longest: int) -> str:
    """A caller's text, safe to print and to send: one line, no control characters, at most `longest` characters."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "�" for c in cut)


def named(value: object) -> str:
    """What a JSON value is, for messages that must not repeat it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"
        case _:
            return type(value).__name__
