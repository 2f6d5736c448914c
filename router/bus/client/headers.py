"""NATS header blocks ⇄ mappings, and protocol commands from checked parts.

Different values of a repeated name are joined with ", ", as in HTTP. So two tenants in one message make an invalid
tenant; the last one does not win.
"""

import re
from collections.abc import Mapping

LINE = b"NATS/1.0\r\n"
_SUBJECT = re.compile(r"[^\s\x00-\x20\x7f]{1,1024}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")


def decode(raw: bytes) -> dict[str, str]:
    """Decode a header block; lines that are not headers are skipped, and invalid UTF-8 becomes U+FFFD."""
    headers: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            continue
        value = value.strip()
        earlier = headers.get(name)
        headers[name] = value if earlier is None or earlier == value else f"{earlier}, {value}"
    return headers


def status(raw: bytes) -> tuple[int, str]:
    """Read the status of a server message: `(503, "")` for `NATS/1.0 503`, `(0, "")` without a status."""
    first = raw[len(LINE) - 2 : raw.index(b"\r\n")].strip()
    code, _, text = first.partition(b" ")
    return (int(code), text.decode(errors="replace").strip()) if code.isdigit() else (0, "")


def encode(headers: Mapping[str, str]) -> bytes:
    """Encode a header block. A line break in a value becomes a space, so a value cannot add a header.

    :raises ValueError: a name is not an HTTP token.
    """
    lines = [LINE]
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"not a header name: {name!r}")
        flat = value if "\r" not in value and "\n" not in value else value.replace("\r", " ").replace("\n", " ")
        lines.append(f"{name}: {flat}\r\n".encode())
    lines.append(b"\r\n")
    return b"".join(lines)


def subject(text: str) -> bytes:
    """Encode a subject for the protocol.

    :raises ValueError: it is empty, has over 1,024 characters, or has white space or control characters; those would
        end the command.
    """
    if not _SUBJECT.fullmatch(text):
        raise ValueError(f"not a subject: {text!r}")
    return text.encode()


def publish(to: bytes, *, reply: bytes, block: bytes, payload: bytes) -> bytes:
    """Build a PUB command, or HPUB with a header `block`; `to` and `reply` must be checked already."""
    if block:
        size = len(block)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (to, reply, size, size + len(payload), block, payload)
    return b"PUB %b %b %d\r\n%b\r\n" % (to, reply, len(payload), payload)
