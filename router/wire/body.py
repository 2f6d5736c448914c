"""A whole body: one JSON object of a bounded size."""

from collections.abc import Callable

from router.domain.decide.decision import Intake
from router.domain.json import JsonObject, JsonValue
from router.wire.parse import NotJsonError, parse_report
from router.wire.problems import Problems, Rejected, named

MAX_QUERY_BYTES = 64 * 1024
"""The largest body of a query or an admin act."""


def read_object(
    data: bytes,
    max_bytes: int,
    warnings: Problems,
    parse: Callable[[bytes, Problems], JsonValue] = parse_report,
) -> JsonObject | Rejected:
    """Read a body that is one JSON object; `parse` says which defects are read over, with a warning."""
    if len(data) > max_bytes:
        return unreadable(
            f"has {len(data):,} bytes", hint=f"send at most {max_bytes:,} bytes", intake=Intake.PAYLOAD_TOO_LARGE
        )
    try:
        doc = parse(data, warnings)
    except NotJsonError as e:
        return unreadable(str(e), hint="send one JSON object in UTF-8")
    return doc if type(doc) is dict else unreadable(f"is {named(doc)}", hint="send one JSON object")


def unreadable(message: str, *, hint: str, intake: Intake = Intake.SCHEMA_VALIDATION_FAILED) -> Rejected:
    """Refuse a body as a whole; `message` is a predicate, such as "is empty"."""
    problems = Problems()
    problems.add("", message=f"the body {message}", hint=hint, intake=intake)
    return problems.rejected()
