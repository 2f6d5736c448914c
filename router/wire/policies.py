"""Policy documents as bytes: decoding, and the canonical encoding that hashes and comparisons rely on."""

import orjson

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.document import Parsed, parse
from router.domain.policy.schema import policy_schema
from router.errors import InvalidInput, Problem

MAX_DOCUMENT_BYTES = 64 * 1024


def decode(data: bytes) -> Parsed:
    """Parse the bytes of a policy document. Of repeated keys the last one wins.

    :raises InvalidInput: not JSON, too large, or not a policy; with every problem found.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        hint = f"at most {MAX_DOCUMENT_BYTES}"
        raise InvalidInput([Problem("", f"the document has {len(data)} bytes", hint)])
    try:
        document: JsonValue = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidInput([Problem("", f"not JSON: {error.msg}", where)]) from error
    return parse(document)


def encode(canonical: JsonObject) -> bytes:
    """The canonical bytes: sorted keys, no spaces, UTF-8."""
    return orjson.dumps(canonical, option=orjson.OPT_SORT_KEYS)


def schema_file() -> bytes:
    """The published JSON Schema: what docs/policy.schema.json holds."""
    return orjson.dumps(policy_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
