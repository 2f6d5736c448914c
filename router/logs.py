"""Log lines: one JSON object per line, or text for a terminal. Standard `logging`, so libraries are included.

    log = logging.getLogger("router.store")
    log.warning("timed out after %d ms", 50, extra={"event": Event.STORE_AWAY, "tenant_id": "acme"})

Every line has ts, level, event, logger, message, and the fields of `extra` (trace_id, tenant_id, request_id …).
Secrets are replaced: fields with a secret's name, credentials in URLs, bearer tokens, and the secrets of this pod's
settings, also inside tracebacks. Warnings of one kind are limited (`router.log_limit`).
"""

import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from router.log_limit import LogLimit
from router.redaction import HIDDEN, redacted
from router.telemetry import Event

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_SECRET_NAME = re.compile(
    r"(?i)password|passwd|secret|token$|_token|^token|authorization|api_?key|credential|nkey|^seed$"
)
_SECRET_TEXT = re.compile(
    r"(?i:(?P<word>\bbearer|\bbasic)\s+[A-Za-z0-9._~+/=-]{8,})"
    r"|(?i:(?P<pair>\b(?:password|token|secret|api_?key)[\"']?\s*[=:]\s*[\"']?)[^\s\"',;}&]+)"
)
# Shorter secrets would replace ordinary text.
_MIN_SECRET = 6


class Redactor:
    """Replaces secrets in texts and fields. `secrets` are values that must never appear."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Replace these secrets too."""
        self._secrets |= {s for s in secrets if len(s) >= _MIN_SECRET}
        known = sorted(self._secrets, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _SECRET_TEXT.sub(_hide, redacted(text))

    def value(self, name: str, value: object) -> object:
        """A field's value without secrets, whatever its shape."""
        if _SECRET_NAME.search(name) and not isinstance(value, int | float | bool | None):
            return HIDDEN
        match value:
            case str():
                return self.text(str(value))
            case Mapping():
                return {str(k): self.value(str(k), v) for k, v in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.value("", v) for v in value]
            case None | int() | float():
                return value
            case _:
                return self.text(str(value))


def _hide(match: re.Match[str]) -> str:
    if match["word"]:
        return f"{match['word']} {HIDDEN}"
    return f"{match['pair']}{HIDDEN}"


class _Formatter(logging.Formatter):
    def __init__(self, redactor: Redactor, pod: str) -> None:
        super().__init__()
        self.redactor = self._redact = redactor
        self._pod = pod

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The line as an object, without secrets."""
        extra = {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        fields: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": str(extra.pop("event", Event.LOG)),
            "logger": record.name,
            "message": self._redact.text(record.getMessage()),
        }
        if self._pod:
            fields["pod"] = self._pod
        for name, value in extra.items():
            # A field of `extra` never replaces a standard one.
            fields.setdefault(name, self._redact.value(name, value))
        if record.exc_info:
            fields["error"] = self._redact.text(self.formatException(record.exc_info))
        return fields


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = self.fields(record)
        try:
            return orjson.dumps(fields).decode()
        except orjson.JSONEncodeError:
            # Lone surrogates and integers beyond 64 bits: rare, and the line must not be lost.
            return json.dumps(fields, default=str, ensure_ascii=False).encode(errors="replace").decode()


class HumanFormatter(_Formatter):
    """Time, level, event, message, then the fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback follows on lines of its own."""
        fields = self.fields(record)
        ts, level, event = fields.pop("ts"), fields.pop("level"), fields.pop("event")
        fields.pop("logger")
        fields.pop("pod", None)
        message, error = fields.pop("message"), fields.pop("error", "")
        rest = " ".join(f"{k}={v}" for k, v in fields.items() if v is not None)
        line = f"{ts[11:23]} {level:<7} {event:<24} {message}" + (f"  {rest}" if rest else "")
        return f"{line}\n{error}" if error else line


def configure(
    level: str, style: str, *, pod: str = "", secrets: Iterable[str] = (), stream: TextIO | None = None
) -> logging.Handler:
    """Send all logging of this process to `stream` (stderr); returns the handler. It replaces any earlier one of ours.

    `style`: json, human, or auto: human on a terminal.
    """
    stream = stream or sys.stderr
    human = style == "human" or (style == "auto" and stream.isatty())
    formatter = (HumanFormatter if human else JsonFormatter)(Redactor(secrets), pod)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(LogLimit(time.monotonic))
    handler.set_name("router")
    root = logging.getLogger()
    for old in [h for h in root.handlers if h.get_name() == "router"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Libraries log at info what this package reports itself.
    for chatty in ("nats", "redis", "asyncio", "opentelemetry", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return handler


def hide(secrets: Iterable[str]) -> None:
    """Replace these secrets, too, in all lines of this process."""
    known = tuple(secrets)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.redactor.add(known)
