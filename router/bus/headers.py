"""NATS header blocks ⇄ mappings, and the check of what is written into the protocol by hand.

A name that comes twice with different values is joined with ", ", as HTTP does: then two tenants in one message are an
invalid tenant, and not whichever came last.
"""

import re
from collections.abc import Mapping

LINE = b"NATS/1.0\r\n"
_SUBJECT = re.compile(r"[^\s\x00-\x20\x7f]{1,1024}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")


def decode(raw: bytes) -> dict[str, str]:
    """The names and values of a header block; lines that are no header are skipped, broken UTF-8 becomes U+FFFD."""
    found: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            continue
        value = value.strip()
        before = found.get(name)
        found[name] = value if before is None or before == value else f"{before}, {value}"
    return found


def status(raw: bytes) -> tuple[int, str]:
    """The inline status of a server's message, `(503, "")` for `NATS/1.0 503`; `(0, "")` when there is none."""
    first = raw[len(LINE) - 2 : raw.index(b"\r\n")].strip()
    code, _, text = first.partition(b" ")
    return (int(code), text.decode(errors="replace").strip()) if code.isdigit() else (0, "")


def encode(headers: Mapping[str, str]) -> bytes:
    """The block for HPUB. A line break in a value becomes a space, so that no value can add a header.

    :raises ValueError: a name that is no HTTP token.
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
    """A subject as it goes over the wire.

    :raises ValueError: empty, over 1024 characters, or with white space or controls (they would end the command).
    """
    if not _SUBJECT.fullmatch(text):
        raise ValueError(f"not a subject: {text!r}")
    return text.encode()


def publish(to: bytes, reply: bytes, block: bytes, payload: bytes) -> bytes:
    """One PUB (when `block` is empty) or HPUB command; `to` and `reply` must be checked already."""
    if block:
        size = len(block)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (to, reply, size, size + len(payload), block, payload)
    return b"PUB %b %b %d\r\n%b\r\n" % (to, reply, len(payload), payload)
