"""A whole body: one JSON object of a bounded size."""

from router.domain.decision import Intake
from router.domain.json import JsonObject
from router.wire.parse import NotJsonError, parse, parse_report
from router.wire.problems import Problems, Rejected, named

MAX_QUERY_BYTES = 64 * 1024
"""The largest body of a query or an admin act."""


def read_object(data: bytes, max_bytes: int, warnings: Problems | None = None) -> JsonObject | Rejected:
    """Read a body that is one JSON object. With `warnings`, defects are read over as in `parse.parse_report`."""
    if len(data) > max_bytes:
        return unreadable(
            f"has {len(data):,} bytes", hint=f"send at most {max_bytes:,} bytes", intake=Intake.PAYLOAD_TOO_LARGE
        )
    try:
        doc = parse(data) if warnings is None else parse_report(data, warnings)
    except NotJsonError as e:
        return unreadable(str(e), hint="send one JSON object in UTF-8")
    return doc if type(doc) is dict else unreadable(f"is {named(doc)}", hint="send one JSON object")


def unreadable(message: str, *, hint: str, intake: Intake = Intake.SCHEMA_VALIDATION_FAILED) -> Rejected:
    """Refuse a body as a whole; `message` is a predicate, such as "is empty"."""
    problems = Problems()
    problems.add("", f"the body {message}", hint=hint, intake=intake)
    return problems.rejected()
