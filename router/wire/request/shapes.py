"""The shapes of a decide request (task, message, input), each read into the same `RequestedTask`."""

from collections.abc import Mapping

from msgspec import Struct

from router.domain.decide.decision import Intake
from router.domain.json import JsonObject, JsonValue
from router.wire.fields import MAX_REFERENCE_CHARS, json_object, text, text_unless_empty
from router.wire.problems import Problems, named

VERSION = "1"
UNKNOWN_TASK = "unknown"
_BRIDGE_FIELDS = ("from", "to")
_ABSENT = (None, "")
_IDS = ("trace_id", "run_id", "flow_id", "step_id", "idempotency_key")


class RequestedTask(Struct, frozen=True):
    """The work of a request in any shape. `ids` has the correlation ids, `message_tenant` the tenant in the message."""

    task_type: str
    payload: JsonValue
    payload_ref: str | None
    metadata: JsonObject
    message_id: object
    ids: JsonObject
    message_tenant: object = None


NO_TASK = RequestedTask("", {}, None, {}, None, {})


def work_of(doc: JsonObject, headers: Mapping[str, str], problems: Problems) -> RequestedTask:
    """Read the work of a request: shape task, else message, else input; a missing payload is `{}`."""
    if (task := doc.get("task")) is not None:
        if headers or doc.get("version") != VERSION:
            _check_version(doc.get("version"), headers, problems)
        return _task(doc, task, problems)
    if (message := doc.get("message")) is not None:
        _check_version(doc.get("version"), headers, problems)
        return _message(doc, message, problems)
    if "input" in doc:
        _check_header_version(headers, problems)
        return _input(doc, problems)
    _check_version(doc.get("version"), headers, problems)
    problems.add("", message="the body has no task, message or input", hint='send "task": {"type": …, "payload": {…}}')
    return NO_TASK


def _check_version(version: object, headers: Mapping[str, str], problems: Problems) -> None:
    """Check that the version is "1"; the header can replace a missing field, and must not differ."""
    _check_header_version(headers, problems)
    if version is None:
        if "version" not in headers:
            problems.add("version", message="is missing", hint='send "version": "1"', intake=Intake.VERSION_UNSUPPORTED)
    elif version != VERSION:
        message = "is not supported" if type(version) is str else f"is {named(version)}"
        problems.add("version", message=message, hint='send the string "1"', intake=Intake.VERSION_UNSUPPORTED)


def _check_header_version(headers: Mapping[str, str], problems: Problems) -> None:
    if headers.get("version", VERSION) != VERSION:
        problems.add(
            "header version",
            message="is not supported",
            hint="send 1, or no such header",
            intake=Intake.VERSION_UNSUPPORTED,
        )


def _task(doc: JsonObject, task: JsonValue, problems: Problems) -> RequestedTask:
    if type(task) is not dict:
        problems.add(
            "task", message=f"is {named(task)}", hint='send an object such as {"type": "chat", "payload": {…}}'
        )
        return NO_TASK
    task_type = task.get("type")
    if task_type is None:
        problems.add("task.type", message="is missing", hint="send the type of the task, such as chat")
    payload, payload_ref = task.get("payload"), task.get("payload_ref")
    if payload_ref is not None:
        payload_ref = text(problems, "task.payload_ref", payload_ref, MAX_REFERENCE_CHARS)
        if payload not in (None, {}):
            problems.add("task.payload", message="is sent together with payload_ref", hint="send only one of them")
        payload = None
    elif payload is None:
        payload = {}
    return RequestedTask(
        text(problems, "task.type", task_type) or "",
        payload,
        payload_ref,
        {} if (metadata := doc.get("metadata")) is None else json_object(problems, "metadata", metadata) or {},
        doc.get("message_id"),
        doc,
    )


def _message(doc: JsonObject, message: JsonValue, problems: Problems) -> RequestedTask:
    if type(message) is not dict:
        problems.add("message", message=f"is {named(message)}", hint="send an object; {} is enough")
        return NO_TASK
    payload, message_id = message.get("payload"), message.get("message_id")
    metadata = json_object(problems, "message.metadata", message.get("metadata"))
    if metadata is None:
        metadata = json_object(problems, "metadata", doc.get("metadata")) or {}
    return RequestedTask(
        text_unless_empty(problems, "message.message_type", message.get("message_type"))
        or _type_of(message, problems)
        or UNKNOWN_TASK,
        {} if payload is None else payload,
        None,
        metadata,
        doc.get("message_id") if message_id in _ABSENT else message_id,
        # Gateways set these ids beside the message, encoders inside it.
        {field: message.get(field) if (v := doc.get(field)) in _ABSENT else v for field in _IDS},
        message.get("tenant_id"),
    )


def _type_of(message: JsonObject, problems: Problems) -> str | None:
    """Read `message.type`, which some gateways send for `message_type`; an unusable one is dropped."""
    if (sent := message.get("type")) is None:
        return None
    refused = Problems()
    task_type = text_unless_empty(refused, "message.type", sent)
    refused.drop_fields()
    problems.warnings += refused.warnings
    return task_type


def _input(doc: JsonObject, problems: Problems) -> RequestedTask:
    payload = doc["input"]
    metadata = dict(json_object(problems, "metadata", doc.get("metadata")) or {})
    for field in _BRIDGE_FIELDS:
        if (address := text(problems, field, doc.get(field))) is not None:
            metadata.setdefault(field, address)
    return RequestedTask(
        text(problems, "message_type", doc.get("message_type")) or UNKNOWN_TASK,
        {} if payload is None else payload,
        None,
        metadata,
        doc.get("message_id"),
        doc,
    )
