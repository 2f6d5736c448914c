"""The shapes in which a decide request may come, each read into the same few facts."""

from collections.abc import Mapping

from msgspec import Struct

from router.domain.decision import Intake
from router.domain.json import JsonObject, JsonValue
from router.wire.fields import LONGEST_REFERENCE, loose_text, table, text
from router.wire.problems import Problems, named

VERSION = "1"
UNKNOWN_TASK = "unknown"
_BRIDGED = ("from", "to")
_ABSENT = (None, "")
_IDS = ("trace_id", "run_id", "flow_id", "step_id", "idempotency_key")


class Work(Struct, frozen=True):
    """What is to be done, whatever the shape. `ids` holds the correlation ids, `inner_tenant` the message's tenant."""

    task_type: str
    payload: JsonValue
    payload_ref: str | None
    metadata: JsonObject
    message_id: object
    ids: JsonObject
    inner_tenant: object = None


NO_WORK = Work("", {}, None, {}, None, {})


def work_of(doc: JsonObject, head: Mapping[str, str], found: Problems) -> Work:
    """The work in a request: shape task, else message, else input; a missing payload is `{}`."""
    if (task := doc.get("task")) is not None:
        if head or doc.get("version") != VERSION:
            _check_version(doc.get("version"), head, found)
        return _task(doc, task, found)
    if (message := doc.get("message")) is not None:
        _check_version(doc.get("version"), head, found)
        return _message(doc, message, found)
    if "input" in doc:
        _check_header_version(head, found)
        return _input(doc, found)
    _check_version(doc.get("version"), head, found)
    found.add("", "holds none of task, message and input", 'give "task": {"type": …, "payload": {…}}')
    return NO_WORK


def _check_version(version: object, head: Mapping[str, str], found: Problems) -> None:
    """The body's version must be "1"; the header stands in for a missing one and may not differ."""
    _check_header_version(head, found)
    if version is None:
        if "version" not in head:
            found.add("version", "is missing", 'give "version": "1"', Intake.VERSION_UNSUPPORTED)
    elif version != VERSION:
        what = "is not supported" if type(version) is str else f"is {named(version)}"
        found.add("version", what, 'this router speaks "1", a string', Intake.VERSION_UNSUPPORTED)


def _check_header_version(head: Mapping[str, str], found: Problems) -> None:
    if head.get("version", VERSION) != VERSION:
        found.add("header version", "is not supported", "this router speaks 1", Intake.VERSION_UNSUPPORTED)


def _task(doc: JsonObject, task: JsonValue, found: Problems) -> Work:
    if type(task) is not dict:
        found.add("task", f"is {named(task)}", 'an object such as {"type": "chat", "payload": {…}}')
        return NO_WORK
    task_type = task.get("type")
    if task_type is None:
        found.add("task.type", "is missing", "name the kind of work, such as chat")
    payload, payload_ref = task.get("payload"), task.get("payload_ref")
    if payload_ref is not None:
        payload_ref = text(found, "task.payload_ref", payload_ref, LONGEST_REFERENCE)
        if payload not in (None, {}):
            found.add("task.payload", "comes together with payload_ref", "give one of them")
        payload = None
    elif payload is None:
        payload = {}
    return Work(
        text(found, "task.type", task_type) or "",
        payload,
        payload_ref,
        {} if (metadata := doc.get("metadata")) is None else table(found, "metadata", metadata) or {},
        doc.get("message_id"),
        doc,
    )


def _message(doc: JsonObject, message: JsonValue, found: Problems) -> Work:
    if type(message) is not dict:
        found.add("message", f"is {named(message)}", "an object; {} is enough")
        return NO_WORK
    payload, message_id = message.get("payload"), message.get("message_id")
    metadata = table(found, "message.metadata", message.get("metadata"))
    if metadata is None:
        metadata = table(found, "metadata", doc.get("metadata")) or {}
    return Work(
        loose_text(found, "message.message_type", message.get("message_type")) or UNKNOWN_TASK,
        {} if payload is None else payload,
        None,
        metadata,
        doc.get("message_id") if message_id in _ABSENT else message_id,
        # Gateways set them outside, encoders of the message inside.
        {field: message.get(field) if (v := doc.get(field)) in _ABSENT else v for field in _IDS},
        message.get("tenant_id"),
    )


def _input(doc: JsonObject, found: Problems) -> Work:
    payload = doc["input"]
    metadata = dict(table(found, "metadata", doc.get("metadata")) or {})
    for end in _BRIDGED:
        if (who := text(found, end, doc.get(end))) is not None:
            metadata.setdefault(end, who)
    return Work(
        text(found, "message_type", doc.get("message_type")) or UNKNOWN_TASK,
        {} if payload is None else payload,
        None,
        metadata,
        doc.get("message_id"),
        doc,
    )
