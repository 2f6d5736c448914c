"""All problems of an input, collected into one refusal."""

from msgspec import Struct

from router.domain.decide.decision import Code, Intake, Refused
from router.domain.defects import Defect, InputWarning, Warnings
from router.domain.json import JsonObject, JsonValue
from router.errors import Problem

MAX_LISTED = 50
_MAX_PATH_CHARS = 128
_MAX_MESSAGE_CHARS = 512
_HEADER = "header "

# The first of these among the problems becomes the code of the refusal. An unsupported version comes before field
# errors, because it changes what the other fields mean.
_PRECEDENCE = (
    Intake.PAYLOAD_TOO_LARGE,
    Intake.TENANT_FORBIDDEN,
    Intake.VERSION_UNSUPPORTED,
    Intake.SCHEMA_VALIDATION_FAILED,
    Intake.IDEMPOTENCY_VIOLATION,
    Intake.CORRELATION_FIELDS_INVALID,
)


class Rejected(Struct, frozen=True):
    """A refusal of bytes that are not a valid request, result or other message, with the ids that are valid."""

    refused: Refused
    request_id: str | None = None
    trace_id: str | None = None


class Problems(list[tuple[Intake, Problem]]):
    """The problems of one document. Paths are cut to 128 characters; values never appear in a problem.

    `warnings`: defects that are no problem, because something else was read instead.
    """

    warnings: Warnings = ()

    def add(self, path: str, *, message: str, hint: str = "", intake: Intake = Intake.SCHEMA_VALIDATION_FAILED) -> None:
        """Add one problem: `message` says what is wrong with the field, `hint` what to send."""
        self.append((intake, Problem(printable(path, _MAX_PATH_CHARS), message=message, hint=hint)))

    def warn(self, defect: Defect, path: str, *, text: str) -> None:
        """Add one warning: `text` says what is wrong with the field, and what was read."""
        text = f"{printable(path, _MAX_PATH_CHARS)} {text}"
        self.warnings = (*self.warnings, InputWarning(defect, text))

    def drop_fields(self) -> None:
        """Turn the problems so far into warnings: their fields are dropped, since nothing depends on them."""
        for _, problem in self:
            header = problem.path.startswith(_HEADER)
            defect = Defect.HEADER_DROPPED if header else Defect.FIELD_DROPPED
            self.warn(defect, problem.path, text=f"{problem.message}: dropped")
        self.clear()

    def rejected(self, *, request_id: str | None = None, trace_id: str | None = None) -> Rejected:
        """Make one refusal of all problems; there must be at least one."""
        kinds = {intake for intake, _ in self}
        intake = next(i for i in _PRECEDENCE if i in kinds)
        first = next(p for i, p in self if i is intake)
        message = str(first)
        if len(self) > 1:
            message += f"; {len(self) - 1} more in details.problems"
        listed: list[JsonValue] = [{"path": p.path, "message": p.message, "hint": p.hint} for _, p in self[:MAX_LISTED]]
        details: JsonObject = {"intake_error_code": intake.value, "problems": listed}
        if len(self) > MAX_LISTED:
            details["truncated"] = True
        code = Code.UNAUTHORIZED if intake is Intake.TENANT_FORBIDDEN else Code.INVALID_REQUEST
        return Rejected(Refused(code, message[:_MAX_MESSAGE_CHARS], details), request_id, trace_id)


def printable(text: str, max_chars: int) -> str:
    """Make a caller's text safe to print and send: one line, no control characters, at most `max_chars` characters."""
    cut = text if len(text) <= max_chars else text[: max_chars - 1] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "�" for c in cut)


def named(value: object) -> str:
    """Name the JSON type of a value, for messages that must not repeat the value."""
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
