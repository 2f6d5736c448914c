"""Defects that must not cost a message: what is read instead, and what the warnings say."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from router.domain.decide.request import DecideRequest
from router.domain.defects import Defect
from router.domain.extensions.pipeline import Stage
from router.domain.gate import Checkpoint
from router.domain.gate import parse as parse_state
from router.domain.ids import from_text
from router.domain.tasks.result import AckStatus, ExecAck, ExecResult, ResultStatus
from router.errors import InvalidInput
from router.wire.admin import decode_admin
from router.wire.decision_query import decode_decision_query
from router.wire.extensions import decode_reply
from router.wire.parse import MAX_REPAIRED_MARKS, NotJsonError, parse_report
from router.wire.pb.beamline.flow.v1.flow_pb2 import Message, RouteRequest
from router.wire.pb.beamline.worker.v1.ack_pb2 import ExecAssignmentAck
from router.wire.pb.beamline.worker.v1.result_pb2 import ExecResult as ProtoResult
from router.wire.policies import decode as decode_policy
from router.wire.problems import Problems, Rejected
from router.wire.request.decide import decode
from router.wire.worker.heartbeats import decode_heartbeat, decode_worker_dead_letter
from router.wire.worker.results import decode_ack, decode_result
from tests.wire.examples import accepted, paths, refused, task_shape

ID = "00070000-0000-4000-8000-000000000001"
OTHER = "00070000-0000-4000-8000-000000000002"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
DONE = {"version": "1", "assignment_id": ID, "tenant_id": "acme", "status": "success"}
HALF = "cut \ud83d"
READ = "cut �"


def result(doc: dict[str, Any] | bytes, headers: dict[str, str] | None = None) -> ExecResult:
    """The result as read; Python's encoder writes what orjson refuses: NaN, and escapes of lone surrogates."""
    answer = decode_result(doc if isinstance(doc, bytes) else json.dumps(doc).encode(), headers)
    assert isinstance(answer, ExecResult), answer
    return answer


def no_result(doc: dict[str, Any] | bytes) -> list[str]:
    """Where the problems of a refused result are."""
    answer = decode_result(doc if isinstance(doc, bytes) else json.dumps(doc).encode(), None)
    assert isinstance(answer, Rejected), answer
    return paths(answer)


def defects(read: ExecResult | ExecAck | DecideRequest) -> list[str]:
    """The kinds of the warnings."""
    return [w.defect.value for w in read.warnings]


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b'"\\ud83d"', "�"),
        (b'"\\uDE00 \\ud83d\\ude00"', "� \U0001f600"),
        (b'"\\ud83d\\ud83d\\ude00"', "�\U0001f600"),
        (b'"\\ud83d\\u0041"', "�A"),
        (b'"\\\\ud83d \\\\\\ud83d"', "\\ud83d \\�"),
        (b'"\\n\\ud83d\\n"', "\n�\n"),
        (b'{"\\udc00":["\\ud800"]}', {"�": ["�"]}),
    ],
)
def test_half_a_character_is_read_as_its_substitute(sent: bytes, read: object) -> None:
    """Escapes of lone surrogates, in values and keys; whole pairs and escaped backslashes stay as they are."""
    body = b'{"assignment_id":"%b","status":"success","output":%b}' % (ID.encode(), sent)
    assert (result(body).output, defects(result(body))) == (read, ["half_character"])
    request = b'{"version":"1","tenant_id":"acme","request_id":"r","task":{"type":"t","payload":%b}}' % sent
    assert accepted(request).payload == read
    assert defects(accepted(request)) == ["half_character"]


def test_half_a_character_in_an_ack_does_not_cost_the_ack() -> None:
    """Its message is a text for people."""
    ack = decode_ack(json.dumps({"assignment_id": ID, "status": "rejected", "message": HALF}).encode(), None)
    assert isinstance(ack, ExecAck)
    assert (ack.status, ack.message, defects(ack)) == (AckStatus.REJECTED, READ, ["half_character"])


@pytest.mark.parametrize("field", ["request_id", "message_id", "idempotency_key", "tenant_id", "policy_id"])
def test_half_a_character_in_an_id_is_refused(field: str) -> None:
    """Two different ids could become equal; an id that has a whole U+FFFD stays an id."""
    assert paths(refused(json.dumps(task_shape(**{field: HALF})).encode())) == [field]
    if field.endswith(("request_id", "message_id", "key")):
        assert accepted(task_shape(**{field: READ})).warnings == ()


def test_half_a_character_in_the_id_that_finds_the_decision_is_refused() -> None:
    """Only there: beside an assignment_id the same field is dropped."""
    found = {"tenant_id": "acme", "status": "success"}
    assert no_result(found | {"request_id": HALF}) == ["request_id"]
    assert no_result(found | {"idempotency_key": HALF, "request_id": "r"}) == ["idempotency_key"]
    assert result(found | {"idempotency_key": "k", "request_id": HALF}).request_id is None
    assert result(DONE | {"request_id": HALF}).request_id is None


def test_a_byte_order_mark_is_skipped() -> None:
    """In results, acks and requests; alone it is no body."""
    mark = b"\xef\xbb\xbf"
    assert defects(result(mark + orjson.dumps(DONE))) == ["byte_order_mark"]
    assert defects(accepted(mark + orjson.dumps(task_shape()))) == ["byte_order_mark"]
    ack = decode_ack(mark + orjson.dumps({"assignment_id": ID, "status": "accepted"}), None)
    assert isinstance(ack, ExecAck)
    for alone in (mark, mark * 2, mark + b"{"):
        assert isinstance(decode(alone, None, None), Rejected)
        assert isinstance(decode_result(alone, None), Rejected)


@pytest.mark.parametrize(
    ("sent", "output", "defect"),
    [
        (b"NaN", None, "not_finite"),
        (b"[1, Infinity, -Infinity, 1e999, %b]" % (b"9" * 400), [1, None, None, None, None], "not_finite"),
        (b'"NaN \t\n"', "NaN \t\n", "control_character"),
        (b'"cut \xf0\x9f"', READ, "not_utf8"),
        (b'"cut \xed\xa0\xbd"', "cut ���", "not_utf8"),
    ],
)
def test_an_odd_value_is_read_in_a_result_and_refused_in_a_request(sent: bytes, output: object, defect: str) -> None:
    """Finished work is kept, whatever its text is made of. A caller can send a request again."""
    read = result(b'{"output":%b,"assignment_id":"%b","status":"success"}' % (sent, ID.encode()))
    assert (read.output, defects(read)) == (output, [defect])
    body = b'{"version":"1","tenant_id":"acme","request_id":"r","task":{"type":"t","payload":%b}}' % sent
    assert isinstance(decode(body, None, None), Rejected)


@pytest.mark.parametrize("body", [b'{"a":1', b"[1,]", b"{'a':1}", b"nan", b'"\\x"', b'{"a" 1}', b"", b'{"x":"\\ud8'])
def test_what_is_no_json_stays_refused(body: bytes) -> None:
    """The lenient reader knows no other grammar."""
    assert no_result(body) == [""]
    assert no_result(b"\xef\xbb\xbf" + body) == [""]


@given(st.recursive(st.text() | st.integers() | st.floats() | st.none(), st.lists, max_leaves=5), st.booleans())
def test_the_lenient_reader_reads_what_python_writes(value: Any, ascii_only: bool) -> None:
    """The same value, with null for what is not finite and U+FFFD for half characters."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    read = parse_report(text.encode("utf-8", "surrogatepass"), Problems())
    expected = json.loads(text, parse_constant=lambda _: None, parse_int=float)
    whole = text.isascii() or text.encode("utf-8", "ignore") == text.encode("utf-8", "surrogatepass")
    if whole and "\\ud" not in text:
        assert json.loads(json.dumps(read), parse_int=float) == expected


@given(st.binary(max_size=40))
def test_the_lenient_reader_reads_or_refuses(body: bytes) -> None:
    """Whatever the bytes: a value that can be written, or one error."""
    with suppress(NotJsonError):
        orjson.dumps(parse_report(body, Problems()))


@pytest.mark.parametrize(
    ("sent", "cost", "latency", "tokens"),
    [
        ("0.5", 500_000, 0, 0),
        (" 12 ", 12_000_000, 12, 12),
        ("1e2", 100_000_000, 100, 100),
        (2.6, 2_600_000, 3, 3),
        ("0", 0, 0, 0),
    ],
)
def test_a_number_may_come_as_text_or_with_a_fraction(sent: object, cost: int, latency: int, tokens: int) -> None:
    """Cost in USD, latency and tokens rounded."""
    r = result(DONE | {"cost": sent, "latency_ms": sent, "tokens": sent})
    assert (r.cost_microusd, r.latency_ms, r.tokens) == (cost, latency, tokens)


@pytest.mark.parametrize("field", ["cost", "latency_ms", "tokens"])
@pytest.mark.parametrize(
    "value", [-1, "-0.5", "1,5", "1_0", "free", "0x10", "nan", "1e999", True, [], {"usd": 1}, 1e30, float("nan")]
)
def test_a_measure_that_is_no_number_from_zero_is_dropped(field: str, value: object) -> None:
    """It counts as not reported, so the reservation stands; the warning names the field and not the value."""
    r = result(DONE | {field: value})
    assert (r.cost_microusd, r.latency_ms, r.tokens) == (None, None, None)
    kind, text = r.warnings[-1]
    assert kind in {Defect.FIELD_DROPPED, Defect.NOT_FINITE}
    assert text.startswith((field, "the body"))
    assert "1,5" not in text


@pytest.mark.parametrize(
    ("sent", "read", "kinds"),
    [
        ({"input": 3, "output": 4, "total": 7}, (7, 3, 4), []),
        ({"input": 3, "output": 4}, (7, 3, 4), []),
        ({"input": 3}, (3, 3, None), []),
        ({"output": "4"}, (4, None, 4), ["other_form"]),
        ({"total": 9}, (9, None, None), []),
        ({"input": 3, "output": 4, "total": 9}, (9, 3, 4), ["contradiction"]),
        ({"input": 3, "output": -4}, (None, 3, None), ["field_dropped"]),
        ({"input": 3, "output": [], "total": 9}, (9, 3, None), ["field_dropped"]),
        ({"input": 3, "output": 4, "total": None}, (7, 3, 4), []),
        ({"input": 3, "output": 4, "total": "x"}, (7, 3, 4), ["field_dropped"]),
        ({"input": 6 * 10**8, "output": 6 * 10**8}, (None, 6 * 10**8, 6 * 10**8), ["field_dropped"]),
        ({}, (None, None, None), ["field_dropped"]),
        ({"prompt": 5}, (None, None, None), ["field_dropped"]),
        (5, (5, None, None), []),
    ],
)
def test_tokens_may_come_in_parts(sent: object, read: tuple[int | None, ...], kinds: list[str]) -> None:
    """A total that differs from the sum wins; without one the sum counts, if every part that was sent is usable."""
    r = result(DONE | {"tokens": sent})
    assert (r.tokens, r.tokens_input, r.tokens_output) == read
    assert defects(r) == kinds


@pytest.mark.parametrize("status", ["SUCCESS", "Success", "sUCCESS"])
def test_a_status_is_read_in_any_case(status: str) -> None:
    """Of results and acks; other words stay refused."""
    assert result(DONE | {"status": status}).status is ResultStatus.SUCCESS
    ack = decode_ack(orjson.dumps({"assignment_id": ID, "status": "Accepted"}), None)
    assert isinstance(ack, ExecAck)
    assert (ack.status, defects(ack)) == (AckStatus.ACCEPTED, ["other_form"])
    assert no_result(DONE | {"status": status + "ful"}) == ["status"]


@pytest.mark.parametrize("version", [1, 1.0])
def test_the_version_may_be_the_number_one(version: object) -> None:
    """Bare and in an envelope."""
    assert defects(result(DONE | {"version": version})) == ["other_form"]
    enveloped = {"version": version, "kind": "exec_result", "data": DONE | {"version": version}}
    assert [w.text.split()[0] for w in result(enveloped).warnings] == ["version", "data.version"]


DEEP = {
    "objects": (b'{"a":', b"1", b"}"),
    "lists": (b"[", b"", b"]"),
    "both": (b'[{"[{\\"":', b"1", b"}]"),
    "siblings": (b"[[],", b'"]"', b",{}]"),
    "not finite": (b"[", b"NaN", b"]"),
}


@pytest.mark.parametrize("levels", [300, 1_100, 10_000])
@pytest.mark.parametrize("kind", DEEP)
def test_an_output_too_deep_to_be_sent_on_is_dropped(kind: str, levels: int) -> None:
    """However deep, the task still ends, and its caller is told; fields after it are read."""
    opening, inner, closing = DEEP[kind]
    deep = opening * levels + inner + closing * levels
    r = result(orjson.dumps(DONE)[:-1] + b',"output":' + deep + b',"cost":0.5}')
    assert (r.output, r.cost_microusd) == (None, 500_000)
    assert "field_dropped" in defects(r)


@pytest.mark.parametrize("field", ["error_message", "trace_id", "job", "tokens", "anything"])
def test_any_other_field_that_is_too_deep_is_dropped(field: str) -> None:
    """Settling needs none of them."""
    deep = b"[" * 5_000 + b"]" * 5_000
    assert result(orjson.dumps(DONE)[:-1] + b',"%b":%b}' % (field.encode(), deep)).status is ResultStatus.SUCCESS


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps(DONE)[:-1] + b',"output":' + b"[" * 2_000,
        orjson.dumps(DONE)[:-1] + b',"output":' + b"[" * 2_000 + b"]" * 1_999 + b"}",
        b"[" * 2_000 + orjson.dumps(DONE) + b"]" * 2_000,
        orjson.dumps(DONE).decode().encode("utf-16-le"),
        b'{"assignment_id":' + b"[" * 2_000 + b"]" * 2_000 + b',"status":"success"}',
    ],
    ids=["unclosed", "one too few", "around", "another encoding", "what settling needs"],
)
def test_what_is_no_result_stays_refused(body: bytes) -> None:
    """Deep or not."""
    assert isinstance(decode_result(body, None), Rejected)


def test_a_header_that_is_not_utf8_is_dropped() -> None:
    """As the decoder of headers leaves it (U+FFFD), and as others do (surrogates); the tenant in the body counts."""
    for garbled in ("ac�me", "ac\udcffme"):
        r = result(DONE, {"tenant_id": garbled, "trace_id": garbled, "Other": garbled})
        assert (r.tenant_id, r.correlation.trace_id) == ("acme", None)
        assert defects(r) == ["header_dropped", "header_dropped"]
    without = {k: v for k, v in DONE.items() if k not in ("tenant_id", "assignment_id")}
    answer = decode_result(orjson.dumps(without | {"request_id": "r"}), {"tenant_id": "ac�me"})
    assert isinstance(answer, Rejected)


def test_protobuf_follows_the_same_rules() -> None:
    """Encoders that do not check their texts, numbers that are not finite, statuses in capitals."""
    r = ProtoResult(assignment_id=ID, status="SUCCESS", cost=float("nan"), error_message="cut ####").SerializeToString()
    read = result(r.replace(b"####", b"\xf0\x9f\x98#"), PROTOBUF)
    assert (read.status, read.cost_microusd, read.error_message) == (ResultStatus.SUCCESS, None, "cut �#")
    assert sorted(defects(read)) == ["field_dropped", "not_utf8", "other_form"]
    ack = decode_ack(
        ExecAssignmentAck(assignment_id=ID, status="accepted", message="##")
        .SerializeToString()
        .replace(b"##", b"#\xff"),
        PROTOBUF,
    )
    assert isinstance(ack, ExecAck)
    assert (ack.message, defects(ack)) == ("#�", ["not_utf8"])
    route = RouteRequest(
        message=Message(message_id="m", tenant_id="acme", payload=b'{"a":"\\ud83d"}', metadata={"m##": "v"}),
        context={"note": "##"},
    )
    request = accepted(route.SerializeToString().replace(b"##", b"#\xff"), PROTOBUF)
    assert (request.payload, request.context, request.metadata) == ({"a": "�"}, {"note": "#�"}, {"m#�": "v"})
    assert defects(request) == ["not_utf8", "half_character"]
    broken = RouteRequest(message=Message(message_id="m##", tenant_id="acme")).SerializeToString()
    assert paths(refused(broken.replace(b"##", b"#\xff"), PROTOBUF)) == ["message_id"]


def test_a_protobuf_payload_that_is_no_json_brings_no_warning() -> None:
    """It is passed on as base64, unchanged."""
    route = RouteRequest(message=Message(message_id="m", tenant_id="acme", payload=b"\xef\xbb\xbfplain"))
    request = accepted(route.SerializeToString(), PROTOBUF)
    assert (request.payload, request.warnings) == ({"base64": "77u/cGxhaW4="}, ())


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HALF)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3), max_leaves=6
)
NOT_NEEDED = (
    *("decision_id", "idempotency_key", "request_id", "provider_id", "job", "job_type", "latency_ms", "cost", "tokens"),
    *("output", "error_code", "error_message", "timestamp", "trace_id", "run_id", "flow_id", "step_id", "context"),
)
MEASURED = {
    "latency_ms": ("latency_ms",),
    "cost": ("cost_microusd",),
    "tokens": ("tokens", "tokens_input", "tokens_output"),
    "error_code": ("error_code",),
}


@given(st.dictionaries(st.sampled_from(NOT_NEEDED), values, max_size=4), st.sampled_from(list(ResultStatus)))
def test_any_value_in_a_field_that_settling_does_not_need_settles_alike(
    odd: dict[str, Any], status: ResultStatus
) -> None:
    """The task, its tenant and its end are the same. Each measure is what was sent alone, or not reported."""
    sent = DONE | odd | {"status": status.value}
    r = result(sent)
    assert (r.assignment_id, r.tenant_id, r.status) == (from_text(ID), "acme", status)
    for field, measures in MEASURED.items():
        alone = result(DONE | {"status": status.value} | ({field: odd[field]} if field in odd else {}))
        for measure in measures:
            assert getattr(r, measure) == getattr(alone, measure)
    orjson.dumps([r.output, r.error_message, r.request_id, [w.text for w in r.warnings]])


@given(st.sampled_from(("decision_id", "idempotency_key", "request_id")), values)
def test_ids_after_the_one_that_finds_the_decision_are_not_needed(field: str, value: Any) -> None:
    """An undispatched decision, found by the first of decision_id, idempotency_key and request_id."""
    finders = {"decision_id": ID, "idempotency_key": "k", "request_id": "r"}
    order = list(finders)
    for first in order[: order.index(field)]:
        kept = {first: finders[first]}
        r = result({"tenant_id": "acme", "status": "success"} | kept | {field: value})
        assert (r.decision_id or r.idempotency_key) == (from_text(ID) if first == "decision_id" else "k")


@given(values, values)
def test_any_value_in_a_field_that_an_ack_does_not_need(message: Any, trace: Any) -> None:
    """Message, reason, request_id and trace_id."""
    doc = {"assignment_id": ID, "status": "accepted", "tenant_id": "acme", "message": message, "reason": trace}
    ack = decode_ack(json.dumps(doc | {"trace_id": trace, "request_id": message}).encode(), None)
    assert isinstance(ack, ExecAck)
    assert replace(ack, message=None, request_id=None, trace_id=None, warnings=()) == ExecAck(
        from_text(ID) or b"", AckStatus.ACCEPTED, tenant_id="acme"
    )


BOM = b"\xef\xbb\xbf"
DOORS: dict[str, Callable[[bytes], Any]] = {
    "request": lambda data: decode(data, None, None),
    "query": lambda data: decode_decision_query(data, None),
    "admin act": lambda data: decode_admin(data, None),
    "result": lambda data: decode_result(data, None),
    "ack": lambda data: decode_ack(data, None),
    "heartbeat": decode_heartbeat,
    "dead letter": decode_worker_dead_letter,
    "extension reply": lambda data: decode_reply(data, Stage.PRE),
}
BODIES: dict[str, dict[str, Any]] = {
    "request": {"version": "1", "tenant_id": "acme", "request_id": "r", "task": {"type": "t", "payload": "X"}},
    "query": {"tenant_id": "acme", "request_id": "r", "note": "X"},
    "admin act": {"tenant_id": "acme", "provider_id": "p", "why": "X"},
    "result": DONE | {"output": "X"},
    "ack": {"assignment_id": ID, "status": "rejected", "message": "X"},
    "heartbeat": {"worker_id": "w", "status": "idle", "note": "X"},
    "dead letter": {"reason": "PARSE_ERROR", "payload_ref": "X"},
    "extension reply": {"payload": {"text": "X"}},
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("before", "text", "found"),
    [
        (BOM, "fine", ["byte_order_mark"]),
        (b"", "\\ud83d", ["half_character"]),
        (b"", "a\\uDE00b", ["half_character"]),
        (BOM, "\\ud83d\\ud83d\\ude00", ["byte_order_mark", "half_character"]),
    ],
)
def test_every_door_reads_over_the_same(door: str, before: bytes, text: str, found: list[str]) -> None:
    """A byte order mark, and half a character in a text for people: read, with a warning that says so."""
    read = DOORS[door](before + orjson.dumps(BODIES[door]).replace(b"X", text.encode()))
    assert [w.defect.value for w in read.warnings] == found


@pytest.mark.parametrize(
    ("door", "field"),
    [
        ("query", "request_id"),
        ("query", "message_id"),
        ("query", "idempotency_key"),
        ("admin act", "provider_id"),
        ("admin act", "request_id"),
        ("admin act", "policy"),
        ("admin act", "cursor"),
    ],
)
def test_half_a_character_in_what_names_something_is_refused(door: str, field: str) -> None:
    """Two names could have become one; a stored policy could not be what was meant. The field is named."""
    body = BODIES[door] | {field: {"providers": ["H"]} if field == "policy" else "H"}
    read = DOORS[door](orjson.dumps(body).replace(b"H", b"cut \\ud83d"))
    assert isinstance(read, Rejected)
    assert paths(read) == [field]
    assert "has half a character" in read.refused.message


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (b'{"providers":[{"name":"a \\ud83d"}]}', "line 1 column 26"),
        (b'{"providers":\n [{"name":"\\ude00"}]}', "line 2 column 12"),
        (BOM + b'{"metadata":{"a":"\\ud83d\\ude00 \\ud83d"}}', "line 1 column 32"),
    ],
)
def test_half_a_character_in_a_policy_is_refused_with_its_place(document: bytes, where: str) -> None:
    """A document is stored: what was meant cannot be guessed."""
    with pytest.raises(InvalidInput, match=rf"half a character .* at {where}: write all of it"):
        decode_policy(document)


@pytest.mark.parametrize("before", [BOM, b""])
def test_files_of_editors_that_write_a_mark_are_read(before: bytes) -> None:
    """Policies and the CP file: some editors put a byte order mark first."""
    assert decode_policy(before + b'{"providers":[{"name":"a","weight":1}]}').policy.providers[0].name == "a"
    assert isinstance(parse_state(before + b'{"current_cp":"CP2-LC"}'), Checkpoint)


LARGE = 4 << 20
HEAD = b'{"version":"1","assignment_id":"%b","status":"success","output":' % ID.encode()


def filled(unit: bytes, end: bytes) -> bytes:
    """A result of 4 MiB whose output repeats a unit."""
    return HEAD + unit * ((LARGE - 200) // len(unit)) + end


@pytest.mark.heavy
@pytest.mark.parametrize(
    "data",
    [
        filled(b"[1,", b"NaN"),
        HEAD + b"[" + b"1," * (LARGE // 2 - 200) + b"NaN]}",
        HEAD + b"[" + b"[]," * (LARGE // 3 - 200) + b"NaN]}",
        HEAD + b"[" + b'{"a":1},' * (LARGE // 8 - 200) + b'"\n"]}',
        HEAD + b'"' + b"\\ud83d" * (LARGE // 6 - 200) + b'"}',
        HEAD + b'"' + b"\\\\" * (LARGE // 2 - 200) + b'\\ud83d"}',
    ],
    ids=["unclosed", "numbers", "lists", "objects", "halves", "backslashes"],
)
def test_a_large_broken_result_does_not_hold_up_the_pod(data: bytes) -> None:
    """Reading it leniently would take seconds of the event loop: it is refused, and the reason names the bound."""
    assert len(data) <= LARGE
    began_s = time.process_time()
    read = decode_result(data, None)
    assert time.process_time() - began_s < 0.6
    assert isinstance(read, Rejected)
    assert f"{MAX_REPAIRED_MARKS:,} values and escapes" in read.refused.message


@pytest.mark.parametrize(
    ("end", "defect"),
    [
        (b'"}', "half_character"),
        (b'","latency_ms":NaN}', "half_character"),
        (b'","error_message":"two\nlines"}', "half_character"),
        (b'\xff"}', "not_utf8"),
    ],
)
def test_a_large_text_with_a_defect_is_read(end: bytes, defect: str) -> None:
    """The bound is on values and escapes, not on bytes: four MiB of text cost little."""
    data = HEAD + b'"' + b"some words " * (LARGE // 11 - 200) + b"\\ud83d" + end
    assert isinstance(read := decode_result(data, None), ExecResult)
    assert defect in defects(read)


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"[" * 2_000 + b'"' + b'\\"' * 500_000,
        HEAD + b"[" * 2_000 + b'""' * (LARGE // 2 - 2_000),
        HEAD + b"[" * 2_000 + b"]" * (LARGE - 4_000),
        HEAD + b"[" * 2_000 + b'"' + b"x" * (LARGE - 4_000),
    ],
    ids=["escaped quotes", "texts", "closing", "one text"],
)
def test_a_deep_broken_result_does_not_hold_up_the_pod(data: bytes) -> None:
    """Whatever follows the depth: refused, in a bounded time."""
    began_s = time.process_time()
    assert isinstance(decode_result(data, None), Rejected)
    assert time.process_time() - began_s < 0.6


def test_what_is_read_leniently_takes_little_time() -> None:
    """At the bound of values."""
    data = HEAD + b"[" + b"1," * (MAX_REPAIRED_MARKS - 20) + b"NaN]}"
    began_s = time.process_time()
    assert isinstance(decode_result(data, None), ExecResult)
    assert time.process_time() - began_s < 0.6
