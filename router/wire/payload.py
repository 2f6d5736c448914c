"""The bound on the payload of a dispatched task."""

import orjson

from router.domain.decide.decision import Intake
from router.domain.json import JsonValue
from router.wire.problems import Problems

MAX_PAYLOAD_BYTES = 64 * 1024


def check_payload(payload: JsonValue, problems: Problems) -> None:
    """Check the size of a payload that is dispatched. What dispatch adds to the payload does not count."""
    size = len(orjson.dumps(payload))
    if size > MAX_PAYLOAD_BYTES:
        message = f"has {size:,} bytes; the payload of a pushed task may have {MAX_PAYLOAD_BYTES:,}"
        hint = "store it elsewhere and send its payload_ref"
        problems.add("task.payload", message=message, hint=hint, intake=Intake.PAYLOAD_TOO_LARGE)
