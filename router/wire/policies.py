"""Policy documents as bytes: decoding, and the canonical encoding for hashes and comparisons."""

import orjson

from router.domain.json import JsonObject
from router.domain.policy.document import Parsed, parse
from router.domain.policy.schema import policy_schema
from router.errors import InvalidInput, Problem
from router.wire.parse import NotJsonError, parse_exactly

MAX_DOCUMENT_BYTES = 64 * 1024


def decode(data: bytes) -> Parsed:
    """Parse the bytes of a policy document. The last of duplicate keys wins; a byte order mark is skipped.

    :raises InvalidInput: the document is not JSON, too large, or not a policy; it lists every problem.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        hint = f"send at most {MAX_DOCUMENT_BYTES:,} bytes"
        raise InvalidInput([Problem("", message=f"the document has {len(data):,} bytes", hint=hint)])
    try:
        document = parse_exactly(data)
    except NotJsonError as error:
        raise InvalidInput([Problem("", message=f"the document {error}", hint="save it as JSON in UTF-8")]) from error
    return parse(document)


def encode(canonical: JsonObject) -> bytes:
    """Encode a document canonically: sorted keys, no spaces, UTF-8."""
    return orjson.dumps(canonical, option=orjson.OPT_SORT_KEYS)


def schema_file() -> bytes:
    """Return the published JSON Schema, the content of docs/policy.schema.json."""
    return orjson.dumps(policy_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
