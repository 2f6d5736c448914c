"""The typed reader and the full one read alike, whatever a document holds.

Documents are put together from fragments of JSON, usual ones and odd ones, so that most are accepted and every field
meets every defect. `tests/fuzz` changes bytes and tokens of the same documents.
"""

import random
from collections.abc import Iterator

import orjson
import pytest

from router.wire.fields import MAX_MS
from router.wire.request.decide import decode, decode_in_full
from router.wire.request.typed import read_typed
from tests.wire.examples import message_shape, task_shape

_LONG, _HALF, _NBSP = '"' + "x" * 257 + '"', r'"\ud800"', '"a\u00a0b"'
_TEXTS = (
    '""',
    '" "',
    "null",
    "5",
    "true",
    '"a\\u0000b"',
    '"é"',
    _NBSP,
    _HALF,
    _LONG,
    '"\\ud83d\\ude00"',
    '"a\\/b"',
    "[]",
)
_NUMBERS = (
    "-0",
    "0",
    "-0.0",
    "1e2",
    "1E400",
    "2.0",
    "5.5",
    "9223372036854775808",
    "18446744073709551616",
    "-1",
    "1e-400",
)
_NUMBERS_AND = (*_NUMBERS, "true", "null", '"5"', "NaN", "01")
_VALUES = (*_NUMBERS, '"\\u001f"', '"\t"', "[1, [2, {}]]", '{"a": 1, "a": 2.0}', '{"": 0}', '"%s"' % ("é" * 40), _HALF)
_OPTIONS = {
    "estimate": (
        ('{"tokens": 5}', "{}", "null"),
        (*(f'{{"tokens": {n}}}' for n in _NUMBERS_AND), '{"cost": 0.5}', "[]"),
    ),
    "deadline_ms": (("500", "null"), _NUMBERS_AND),
    "explain": (("true", "false", "null"), ("1", '"true"')),
    "meter": (("true", "false"), ("0", "[]")),
    "retry": (("null",), ('{"max_attempts": 2}', "5")),
    "priority": (("null",), ('"high"', "5", "1.5")),
    "result_subject": (("null",), ('"_INBOX.a"', '"x"')),
    "other": ((), ("1", "1e999")),
}
_CONTEXT = {
    "session_id": (('"s-1"', "null"), _TEXTS),
    "user_id": (('"u-1"', "null"), (*_TEXTS, "7.0")),
    "status": ((), ('"timeout"', "500", '""', "null")),
    "current_provider": ((), ('"a"', "null", '""')),
    "retry_attempts": ((), ("0", "1", '"2"', "null")),
    "retry_attempts_b": ((), ("0", "x")),
    "ip_address": ((), ('"10.0.0.1"', '"x"', "null", '""')),
    "timestamp": (("1700000000", '"now"'), (*_VALUES, "null")),
    "trace_id": (('"t"',), _VALUES),
    "region": (('"eu"', "true", "1"), _VALUES),
}
_TASK = {
    "type": (('"chat"',), _TEXTS),
    "payload": (('{"text": "hello"}', '["a", 1, 2.5, null]', '"x"', "{}"), _VALUES),
    "payload_ref": (("null",), ('"s3://x"', "5")),
    "other": ((), ("1",)),
}
_BODY = {
    "version": (('"1"',), ('"2"', "1", "null")),
    "tenant_id": (('"acme"', '"acme.eu-1"'), (*_TEXTS, '"a b"', '"acme."', '".acme"', '"a..b"')),
    "request_id": (('"r-1"',), _TEXTS),
    "policy_id": (('"default"', '"gold_2"', "null"), (*_TEXTS, '"a b"')),
    "trace_id": (('"t-1"', "null"), _TEXTS),
    "run_id": (('"run"', "null"), _TEXTS),
    "flow_id": (('"flow"',), _TEXTS),
    "step_id": (('"step"',), _TEXTS),
    "idempotency_key": (('"key"', "null"), _TEXTS),
    "message_id": (('"m-1"', "null"), _TEXTS),
    "push_assignment": (("true", "false", "null"), ("1", '"true"', '"x"', "[]")),
    "assignment_subject": (("null",), ('"caf.exec.x"', '"x"')),
    "constraints": (("null",), ('{"max_latency_ms": 5}', "{}")),
    "metadata": (("null",), ('{"a": 1}', "{}", "[]")),
    "message": (("null",), ("{}", '{"message_id": "m"}')),
    "input": ((), ('"x"',)),
    "other": ((), ("1", "null", '"\\ud800"')),
}
_NEEDED = {"version", "tenant_id", "request_id", "type"}


def documents(seed: int) -> Iterator[bytes]:
    """Documents without end; all follow from the seed."""
    r = random.Random(seed)  # noqa: S311 - it shall be repeatable

    def one_of(fields: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> str:
        parts = []
        for name, (usual, odd) in fields.items():
            drawn = r.random()
            if usual and (drawn < 0.5 or (name in _NEEDED and drawn < 0.98)):
                parts.append(f'"{name}": {r.choice(usual)}')
            elif odd and drawn > 0.985:
                parts.append(f'"{name}": {r.choice(odd)}')
            if drawn < 0.01:
                parts.append(f'"{name}": {r.choice(usual + odd)}')
        r.shuffle(parts)
        return "{" + ", ".join(parts) + "}"

    def part_or_odd(
        fields: dict[str, tuple[tuple[str, ...], tuple[str, ...]]],
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (one_of(fields), "{}"), ("null", "[]", '"x"', "5")

    while True:
        body = _BODY | {"task": part_or_odd(_TASK), "context": part_or_odd(_CONTEXT), "options": part_or_odd(_OPTIONS)}
        body["task"] = (body["task"][0][:1], body["task"][1])
        yield one_of(body).encode("utf-8", "surrogatepass")


def check(count: int, seed: int) -> int:
    """Read so many documents both ways; return how many the typed reader accepted."""
    accepted = 0
    for _, data in zip(range(count), documents(seed), strict=False):
        for subject, longest in ((None, MAX_MS), ("acme", 400)):
            if read_typed(data, subject, longest) is None:
                continue
            accepted += subject is None
            typed = decode(data, None, subject, max_deadline_ms=longest)
            # repr tells 1 from 1.0, from -0.0 and from True; == does not.
            assert repr(typed) == repr(decode_in_full(data, None, subject, max_deadline_ms=longest)), data
    return accepted


def test_both_readers_read_alike() -> None:
    """And the typed one reads a good part of the documents, so that the comparison means something."""
    assert check(5_000, seed=1) > 1_000


@pytest.mark.long
def test_both_readers_read_half_a_million_documents_alike() -> None:
    """As above, other documents in every run; the seed is in the failure."""
    seed = random.SystemRandom().randrange(2**32)
    assert check(500_000, seed) > 100_000, seed


@pytest.mark.parametrize(
    "data",
    [
        orjson.dumps(task_shape()),
        orjson.dumps(task_shape(push_assignment=True, options={"estimate": {"tokens": 5}, "deadline_ms": 5})),
        orjson.dumps(task_shape(run_id="r", flow_id="f", step_id="s", idempotency_key="k", message_id="m")),
    ],
    ids=["plain", "pushed with options", "all ids"],
)
def test_a_usual_request_takes_the_typed_reader(data: bytes) -> None:
    """Otherwise it would be read twice, and nobody would notice but by its cost."""
    assert read_typed(data, None, MAX_MS) is not None


@pytest.mark.parametrize(
    "data",
    [
        orjson.dumps(message_shape()),
        orjson.dumps(task_shape(unknown=1)),
        orjson.dumps(task_shape(tenant_id="a b")),
        orjson.dumps(task_shape(context={"status": "timeout"})),
        b'{"version":"1","tenant_id":"a","request_id":"r","task":{"type":"t"},"context":{"timestamp":18446744073709551616}}',
        b"\xef\xbb\xbf" + orjson.dumps(task_shape()),
        orjson.dumps(task_shape())[:-1],
        b"[" * 2_000,
        b'{"version":"1","tenant_id":"a","request_id":"r","task":{"type":"t","payload":%b}}' % (b"9" * 5_000),
        b'{"version":"1","tenant_id":"a","request_id":"r","task":{"type":"t","payload":"\xff"}}',
    ],
    ids=[
        "another shape",
        "unknown field",
        "bad name",
        "a step",
        "beyond 64 bits",
        "byte order mark",
        "cut",
        "nested",
        "5,000 digits",
        "not UTF-8",
    ],
)
def test_anything_else_is_read_in_full(data: bytes) -> None:
    """Whatever is wrong with it, the answer is the full reader's."""
    assert read_typed(data, None, MAX_MS) is None
    assert repr(decode(data, None, None)) == repr(decode_in_full(data, None, None))


def test_headers_and_strict_ids_are_the_full_readers() -> None:
    """A header may name tenant, key and trace; strict ids are checked there only."""
    data = orjson.dumps(task_shape())
    for headers, strict in (({"idempotency-key": "k"}, False), ({"tenant_id": "other"}, False), (None, True)):
        typed, full = (read(data, headers, None, strict=strict) for read in (decode, decode_in_full))
        assert repr(typed) == repr(full) != repr(decode(data, None, None))
