"""Alerts and dead letters: encoding, and decoding of what the streams hold."""

from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from router.domain.alert import Alert, Severity
from router.domain.json import UNREADABLE, JsonObject
from router.wire.reply import header_value
from router.wire.subjects import ALERT

SOURCE = "/router-fleet"

# Bytes that the field `payload` adds to its base64 text: name, quotes and padding.
_PAYLOAD_FIELD_BYTES = 32


class DeadLetter(Struct, frozen=True):
    """A message that the router gave up on. `received_at_ms`: when its stream stored it, in Unix ms.

    The dead letter holds a hash of `payload`, and `payload` itself only with `keep_payload`.
    """

    original_subject: str
    reason: str
    error_code: str
    received_at_ms: int
    payload: bytes
    keep_payload: bool = False
    original_msg_id: str | None = None
    tenant_id: str | None = None
    trace_id: str | None = None
    context: JsonObject = {}


def alert_subject(severity: Severity) -> str:
    """Return the subject of alerts of a severity."""
    return f"{ALERT}.{severity.value}"


def encode_alert(alert: Alert) -> tuple[bytes, dict[str, str]]:
    """Encode an alert as payload and headers: a CloudEvent in binary content mode."""
    time = rfc3339(alert.timestamp_ms)
    body: JsonObject = {
        "alert_id": alert.alert_id,
        "severity": alert.severity.value,
        "component": alert.component,
        "message": alert.message,
        "timestamp": time,
        "metadata": alert.metadata,
    }
    # Source and id identify one event: the end of an alert needs an id of its own.
    event_id = f"{alert.alert_id}:resolved" if alert.metadata.get("resolved") is True else alert.alert_id
    headers = {
        "ce-specversion": "1.0",
        "ce-id": header_value(event_id),
        "ce-source": f"{SOURCE}/{header_value(alert.component)}",
        "ce-type": alert_subject(alert.severity),
        "ce-time": time,
        "Content-Type": "application/json",
    }
    return orjson.dumps(body), headers


def encode_dead_letter(letter: DeadLetter, max_bytes: int) -> tuple[bytes, dict[str, str]]:
    """Encode a dead letter as payload and headers.

    A kept payload is base64, so a redrive sends the same bytes. A payload that makes the dead letter longer than
    `max_bytes` is left out: the hash alone is better than no dead letter.
    """
    body: JsonObject = {
        "original_subject": letter.original_subject,
        "reason": letter.reason,
        "error_code": letter.error_code,
        "received_at": rfc3339(letter.received_at_ms),
        "context": letter.context,
        "payload_sha256": sha256(letter.payload).hexdigest(),
    }
    if letter.tenant_id is not None:
        body["tenant_id"] = letter.tenant_id
    if letter.trace_id is not None:
        body["trace_id"] = letter.trace_id
    data = orjson.dumps(body)
    if letter.keep_payload and len(data) + len(letter.payload) * 4 // 3 + _PAYLOAD_FIELD_BYTES <= max_bytes:
        data = orjson.dumps(body | {"payload": b64encode(letter.payload).decode()})
    headers = {"x-dlq-reason": header_value(letter.reason)}
    if letter.original_msg_id is not None:
        headers["x-original-msg-id"] = header_value(letter.original_msg_id)
    return data, headers


class ReceivedDeadLetter(Struct, frozen=True):
    """A dead letter from the stream. `payload` is base64; None: only its hash was kept."""

    original_subject: str = ""
    reason: str = ""
    error_code: str = ""
    received_at: str = ""
    payload_sha256: str = ""
    tenant_id: str | None = None
    trace_id: str | None = None
    payload: str | None = None
    context: dict[str, Any] = {}


_dead_letter_decoder = msgspec.json.Decoder(ReceivedDeadLetter)


def decode_dead_letter(data: bytes) -> ReceivedDeadLetter | None:
    """Decode a dead letter; None: the bytes are not a dead letter of the router."""
    try:
        return _dead_letter_decoder.decode(data)
    except UNREADABLE:
        return None


class ReceivedAlert(Struct, frozen=True):
    """An alert from the stream."""

    alert_id: str
    severity: str
    component: str = ""
    message: str = ""
    timestamp: str = ""
    metadata: dict[str, Any] = {}


_alert_decoder = msgspec.json.Decoder(ReceivedAlert)


def decode_alert(data: bytes) -> ReceivedAlert | None:
    """Decode an alert; None: the bytes are not an alert of the router."""
    try:
        return _alert_decoder.decode(data)
    except UNREADABLE:
        return None


def rfc3339(unix_ms: int) -> str:
    """Format Unix milliseconds as RFC 3339, such as 2026-01-31T12:00:00.000Z."""
    text = datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
