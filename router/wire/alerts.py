"""Alerts and dead letters → bytes and headers."""

from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from router.domain.alert import Alert, Severity
from router.domain.json import JsonObject
from router.wire.reply import header_value
from router.wire.subjects import ALERT

SOURCE = "/router-fleet"

# The field's name, quotes and padding.
_AROUND_PAYLOAD = 32


class DeadLetter(Struct, frozen=True):
    """A message that was given up on. `payload` is only hashed unless it is to be kept; `received_at_ms` is Unix ms."""

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
    """Where alerts of that severity go."""
    return f"{ALERT}.{severity.value}"


def encode_alert(alert: Alert) -> tuple[bytes, dict[str, str]]:
    """Payload and headers of one alert, a CloudEvent in binary mode."""
    at = rfc3339(alert.timestamp_ms)
    body: JsonObject = {
        "alert_id": alert.alert_id,
        "severity": alert.severity.value,
        "component": alert.component,
        "message": alert.message,
        "timestamp": at,
        "metadata": alert.metadata,
    }
    # source and id together name one event: the end of an alert is another event than its beginning.
    event_id = f"{alert.alert_id}:resolved" if alert.metadata.get("resolved") is True else alert.alert_id
    headers = {
        "ce-specversion": "1.0",
        "ce-id": header_value(event_id),
        "ce-source": f"{SOURCE}/{header_value(alert.component)}",
        "ce-type": alert_subject(alert.severity),
        "ce-time": at,
        "Content-Type": "application/json",
    }
    return orjson.dumps(body), headers


def encode_dead_letter(letter: DeadLetter, max_bytes: int) -> tuple[bytes, dict[str, str]]:
    """Payload and headers of a dead letter; a kept payload is base64, so that a re-drive sends the very bytes.

    One that makes the letter longer than `max_bytes` is only hashed: better that than no letter.
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
    if letter.keep_payload and len(data) + len(letter.payload) * 4 // 3 + _AROUND_PAYLOAD <= max_bytes:
        data = orjson.dumps(body | {"payload": b64encode(letter.payload).decode()})
    headers = {"x-dlq-reason": header_value(letter.reason)}
    if letter.original_msg_id is not None:
        headers["x-original-msg-id"] = header_value(letter.original_msg_id)
    return data, headers


class ReceivedDeadLetter(Struct, frozen=True):
    """A dead letter as it lies in the stream. `payload` is base64; None: only its hash was kept."""

    original_subject: str = ""
    reason: str = ""
    error_code: str = ""
    received_at: str = ""
    payload_sha256: str = ""
    tenant_id: str | None = None
    trace_id: str | None = None
    payload: str | None = None
    context: dict[str, Any] = {}


_letter = msgspec.json.Decoder(ReceivedDeadLetter)


def decode_dead_letter(data: bytes) -> ReceivedDeadLetter | None:
    """The letter in a message; None: it is none of ours."""
    try:
        return _letter.decode(data)
    except msgspec.DecodeError:
        return None


class ReceivedAlert(Struct, frozen=True):
    """An alert as it lies in the stream."""

    alert_id: str
    severity: str
    component: str = ""
    message: str = ""
    timestamp: str = ""
    metadata: dict[str, Any] = {}


_alert = msgspec.json.Decoder(ReceivedAlert)


def decode_alert(data: bytes) -> ReceivedAlert | None:
    """The alert in a message; None: it is none of ours."""
    try:
        return _alert.decode(data)
    except msgspec.DecodeError:
        return None


def rfc3339(unix_ms: int) -> str:
    """Unix milliseconds as 2026-01-31T12:00:00.000Z."""
    text = datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
