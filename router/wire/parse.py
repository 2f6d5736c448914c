"""Parses JSON bytes into Python values, and checks that they can be encoded again.

The strict parser always runs first. Only bodies that it refuses are read leniently, with a warning for each defect.
"""

import json
import re
from contextlib import suppress
from itertools import islice
from math import isfinite

import orjson

from router.domain.defects import Defect
from router.domain.json import JsonValue
from router.wire.problems import Problems

MAX_DEPTH = 250
HALF = "\ufffd"
"""What is read for half a character, and for bytes that are not UTF-8."""

BOM = b"\xef\xbb\xbf"
_HALF_ESCAPE = rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
# Escapes that are not half a character: a backslash, and both halves of a character.
_WHOLE_ESCAPE = rb"(?:\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
# A match begins at a backslash that is not escaped. Without the second branch, the search would continue inside a run
# of backslashes.
_HALVES = re.compile(rb"(?<!\\)(?:(%b*+)%b|%b++)" % (_WHOLE_ESCAPE, _HALF_ESCAPE, _WHOLE_ESCAPE))
# A text that does not end is one token too: searched again from each quote in it, it would take quadratic time.
_NESTING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_OPENING, _CLOSING = (b"[", b"{"), (b"]", b"}")
_CUT_DEPTH = 400
_MAX_INT64_DIGITS = 18

MAX_REPAIRED_MARKS = 65_536
"""The maximum number of values and escapes in a body whose defects are read leniently.

Reading leniently costs up to 1.5 µs for each, in the event loop; 4 MiB of small values took seconds.
"""
_MAX_TOKENS = 4 * MAX_REPAIRED_MARKS
_TOO_MANY = f"defects are read over only in bodies of up to {MAX_REPAIRED_MARKS:,} values and escapes"
_HALF_STARTS = (b"\\ud", b"\\uD")
_BACKSLASHES_A_MARK = 8


class NotJsonError(ValueError):
    """The bytes are not JSON that the router accepts. The message is a predicate, such as "is empty"."""


def parse(data: bytes) -> JsonValue:
    """Decode JSON. The last of duplicate keys wins, and a whole number beyond 64 bits becomes a float.

    NaN and Infinity are not JSON. The value may be nested deeper than can be encoded: check it with `is_writable`.

    :raises NotJsonError: not JSON, or not UTF-8, or nested more than 1,024 deep.
    """
    try:
        value: JsonValue = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        raise NotJsonError(_fault(data, e)) from e
    return value


def parse_request(data: bytes, warnings: Problems) -> JsonValue:
    """Decode JSON as `parse` does, but skip a byte order mark and read half characters as U+FFFD.

    :raises NotJsonError: as in `parse`; or a defect in more than `MAX_REPAIRED_MARKS` values and escapes.
    """
    try:
        value: JsonValue = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        repaired = _without_halves(_without_mark(data, warnings), warnings)
        if repaired is data:
            raise NotJsonError(_fault(data, e)) from e
        return parse(repaired)
    return value


def parse_exactly(data: bytes) -> JsonValue:
    """Decode JSON as `parse` does, but skip a byte order mark, and say where half a character is.

    For documents that are stored, because the intended text cannot be guessed.

    :raises NotJsonError: as in `parse`.
    """
    body = data.removeprefix(BOM)
    try:
        return parse(body)
    except NotJsonError as e:
        for found in _HALVES.finditer(body) if b"\\u" in body and _is_repairable(body) else ():
            if found[1] is not None:
                at = found.end() - len(rb"\uXXXX")
                line, column = body.count(b"\n", 0, at) + 1, at - body.rfind(b"\n", 0, at)
                message = f"has half a character (a lone surrogate) at line {line} column {column}: write all of it"
                raise NotJsonError(message) from e
        raise


def parse_report(data: bytes, warnings: Problems) -> JsonValue:
    """Decode JSON about finished work: as `parse_request`, and read further defects of single values.

    Bytes that are not UTF-8 become U+FFFD, numbers that are not finite become null, raw control characters stay, and
    what is nested too deep to be encoded is cut off below a depth that `is_writable` still refuses.

    :raises NotJsonError: another defect than these; or a defect in more than `MAX_REPAIRED_MARKS` values and escapes.
    """
    try:
        value: JsonValue = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        body = _without_halves(_as_utf8(_without_mark(data, warnings), warnings), warnings)
        if body is not data:
            with suppress(orjson.JSONDecodeError):
                repaired: JsonValue = orjson.loads(body)
                return repaired
        if not _is_repairable(body):
            raise NotJsonError(f"{_fault(data, e)} ({_TOO_MANY})") from e
        try:
            return _lenient(_without_depths(body), warnings)
        except (ValueError, RecursionError):
            raise NotJsonError(_fault(data, e)) from e
    return value


def _is_repairable(data: bytes) -> bool:
    """Whether reading the body leniently takes a bounded time: see `MAX_REPAIRED_MARKS`."""
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    halves = sum(map(data.count, _HALF_STARTS))
    return values + halves + data.count(b"\\") // _BACKSLASHES_A_MARK <= MAX_REPAIRED_MARKS


def _without_mark(data: bytes, warnings: Problems) -> bytes:
    if not data.startswith(BOM):
        return data
    warnings.warn(Defect.BYTE_ORDER_MARK, "the body", text="begins with a byte order mark: skipped")
    return data[len(BOM) :]


def _as_utf8(data: bytes, warnings: Problems) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError as e:
        warnings.warn(Defect.NOT_UTF8, "the body", text=f"is not UTF-8 at offset {e.start}: read as U+FFFD")
        return data.decode(errors="replace").encode()
    return data


def _without_halves(data: bytes, warnings: Problems) -> bytes:
    """Replace escapes of lone surrogates, which encoders write for a text that was cut inside a character."""
    if b"\\u" not in data or not _is_repairable(data):
        return data
    repaired = _HALVES.sub(lambda m: m[0] if m[1] is None else m[1] + b"\\ufffd", data)
    if repaired == data:
        return data
    warnings.warn(Defect.HALF_CHARACTER, "the body", text="has half a character (a lone surrogate): read as U+FFFD")
    return repaired


def _without_depths(data: bytes) -> bytes:
    """Replace each list and object deeper than `_CUT_DEPTH` with null, within the first `_MAX_TOKENS` tokens."""
    kept: list[bytes] = []
    depth = kept_until = 0
    for token in islice(_NESTING.finditer(data), _MAX_TOKENS):
        if token[0] in _OPENING:
            depth += 1
            if depth == _CUT_DEPTH + 1:
                kept += data[kept_until : token.start()], b"null"
        elif token[0] in _CLOSING:
            if depth == _CUT_DEPTH + 1:
                kept_until = token.end()
            depth -= 1
    return b"".join((*kept, data[kept_until:])) if kept else data


def _lenient(data: bytes, warnings: Problems) -> JsonValue:
    """Decode with the parser of Python, which knows NaN, Infinity and raw control characters.

    :raises ValueError: not JSON.
    :raises RecursionError: nested too deep.
    """
    is_finite = True

    def integer(text: str) -> int | float | None:
        return int(text) if len(text) <= _MAX_INT64_DIGITS else number(text)

    def number(text: str) -> float | None:
        nonlocal is_finite
        value = float(text)
        if isfinite(value):
            return value
        is_finite = False
        return None

    def load(strict: bool) -> JsonValue:
        # As text: of bytes, the parser would guess the encoding, and take some for UTF-16.
        value: JsonValue = json.loads(text, parse_int=integer, parse_float=number, parse_constant=number, strict=strict)
        return value

    text = data.decode()
    try:
        value = load(strict=True)
    except json.JSONDecodeError as e:
        if not e.msg.startswith("Invalid control character"):
            raise
        value = load(strict=False)
        warnings.warn(Defect.CONTROL_CHARACTER, "the body", text="has a control character that is not escaped: kept")
    if not is_finite:
        warnings.warn(Defect.NOT_FINITE, "the body", text="has a number that is not finite: read as null")
    return value


def is_writable(value: JsonValue) -> bool:
    """Whether orjson can encode the value inside a message: it decodes 1,024 levels, but encodes only 254."""
    try:
        orjson.dumps([[[[value]]]])
    except orjson.JSONEncodeError:
        return False
    return True


def _fault(data: bytes, error: orjson.JSONDecodeError) -> str:
    if not data.strip():
        return "is empty"
    try:
        bytes(data).decode()
    except UnicodeDecodeError as e:
        return f"is not UTF-8: invalid byte at offset {e.start}"
    if error.msg.startswith("depth limit"):
        return f"is nested more than {MAX_DEPTH} levels deep"
    return f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
