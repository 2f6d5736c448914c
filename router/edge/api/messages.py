"""HTTP messages: a request's headers and body, and the status and headers of a reply."""

from collections.abc import Iterable, Mapping
from math import ceil

import orjson
from msgspec import Struct
from starlette.types import Receive, Scope, Send

from router.domain.decide.decision import Code, Refused
from router.wire.codes import NUMBERS
from router.wire.problems import Problems
from router.wire.reply import encode

MAX_BODY_BYTES = 1 << 20
JSON = b"application/json"
_DECIDED = b'{"ok":true,'
_REPLAYED = b'"replayed":true'
_NAMES = {
    b"authorization": "authorization",
    b"x-api-key": "x-api-key",
    b"content-type": "content-type",
    b"content-length": "content-length",
    b"idempotency-key": "idempotency-key",
    b"traceparent": "traceparent",
    b"x-client-ip": "x-client-ip",
    b"host": "host",
    b"prefer": "prefer",
}
# Those that a decide request may have in NATS, too.
_PASSED_ON = ("idempotency-key", "traceparent", "x-client-ip")

Headers = list[tuple[bytes, bytes]]


class Reply(Struct, frozen=True):
    """A reply: status, body, and its headers without the length."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = JSON


class TooLarge(Exception):
    """The body of a request is larger than the API takes."""


class ClientGone(Exception):
    """The client closed its connection before its request was complete."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers that the API reads. Of a header that was sent twice, the last one counts."""
    names = _NAMES
    return {names[name]: value.decode("utf-8", "replace") for name, value in scope["headers"] if name in names}


def request_headers(headers: Mapping[str, str]) -> dict[str, str] | None:
    """Return the headers of a decide request, as over NATS; None: there is none of them."""
    passed_on = {name: headers[name] for name in _PASSED_ON if name in headers}
    if (key := passed_on.get("idempotency-key")) is not None and len(key) > 1 and key[0] == key[-1] == '"':
        # A string of structured fields (RFC 9651, 3.3.3).
        passed_on["idempotency-key"] = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if "protobuf" in headers.get("content-type", ""):
        passed_on["content-type"] = headers["content-type"]
    return passed_on or None


async def read_body(headers: Mapping[str, str], receive: Receive) -> bytes:
    """Read the whole body.

    :raises TooLarge: it has more than 1 MiB.
    :raises ClientGone: it was not sent completely.
    """
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise TooLarge
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return _bounded(bytes(message.get("body", b"")))
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY_BYTES:
            raise TooLarge
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()


def _bounded(body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge
    return body


async def send_reply(send: Send, reply: Reply, more: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a reply."""
    headers: Headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        (b"cache-control", b"no-store"),
        *reply.headers,
        *more,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def reply_of(body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """Make the HTTP reply of a decide reply: the same body, and what it says as status and headers."""
    if headers is not None and body[:1] != b"{":
        return _protobuf(body, headers)
    if not body.startswith(_DECIDED):
        return _refusal(body)
    if _REPLAYED in body and (orjson.loads(body).get("context") or {}).get("replayed") is True:
        return Reply(200, body, ((b"idempotent-replayed", b"true"),))
    return Reply(200, body)


def refused(refusal: Refused, status: int | None = None) -> Reply:
    """Make the reply of a refusal; its status is that of the code unless it is given."""
    reply = _refusal(encode(refusal, request_id=None, trace_id=None))
    return Reply(status or reply.status, reply.body, reply.headers)


def invalid(path: str, message: str, hint: str) -> Reply:
    """Make the reply that refuses a field: what is wrong with it, and what to send."""
    problems = Problems()
    problems.add(path, message=message, hint=hint)
    return refused(problems.rejected().refused)


def _refusal(body: bytes) -> Reply:
    error = orjson.loads(body).get("error") or {}
    details = error.get("details") or {}
    # The true code where ROUTER_LEGACY_ERROR_CODES changed it.
    code = Code(details["code"] if isinstance(details.get("code"), str) else error["code"])
    headers: Headers = []
    wait_ms = details.get("retry_after_ms")
    if isinstance(wait_ms, int | float) and wait_ms >= 0:
        seconds = b"%d" % max(1, ceil(wait_ms / 1000))
        headers.append((b"retry-after", seconds))
        if isinstance(limit := details.get("limit_id"), str):
            headers.append((b"ratelimit", b'"%b";r=0;t=%b' % (_quoted(limit), seconds)))
    if code is Code.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    return Reply(NUMBERS[code].http, body, tuple(headers))


def _quoted(text: str) -> bytes:
    """The inside of a string of structured fields: printable ASCII, with escapes."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    return plain.replace("\\", "\\\\").replace('"', '\\"').encode()


def _protobuf(body: bytes, headers: Mapping[str, str]) -> Reply:
    status = int(headers.get("Nats-Service-Error-Code", "200"))
    passed_on: Headers = [
        (name.lower().encode(), value.encode())
        for name, value in headers.items()
        if name in ("x-error-code", "request_id", "trace_id")
    ]
    if (message := headers.get("Nats-Service-Error")) is not None:
        passed_on.append((b"x-error-message", message.encode()))
    return Reply(status, body, tuple(passed_on), headers.get("Content-Type", "application/x-protobuf").encode())
