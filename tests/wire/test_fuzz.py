from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.request import DecideRequest
from router.wire.admin import decode_admin
from router.wire.decision_query import decode_decision_query
from router.wire.problems import Rejected
from router.wire.reply import encode, encode_protobuf
from router.wire.request.decide import decode
from router.wire.worker.heartbeats import decode_heartbeat, decode_worker_dead_letter
from router.wire.worker.job import encode_job
from router.wire.worker.results import decode_ack, decode_result
from tests.wire.examples import task_shape

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    *("version", "tenant_id", "request_id", "task", "message", "input", "policy_id", "constraints", "metadata"),
    *("context", "trace_id", "run_id", "flow_id", "step_id", "idempotency_key", "push_assignment"),
    *("assignment_subject", "options", "message_id", "type", "payload", "payload_ref", "kind", "data"),
    *("assignment_id", "status", "decision_id", "job", "job_type", "latency_ms", "cost", "tokens", "output"),
    *("error_code", "error_message", "worker_id", "load", "reason", "max_latency_ms", "max_cost", "estimate"),
    *("deadline_ms", "retry", "result_subject", "ip_address", "user_id", "retry_attempts_x", "api_key"),
)
documents = st.recursive(
    values, lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6), max_leaves=12
)
HEADERS = (
    *("tenant_id", "trace_id", "version", "idempotency-key", "x-client-ip", "traceparent"),
    *("push_assignment", "X", "authorization"),
)
headers = st.none() | st.dictionaries(
    st.sampled_from(HEADERS), st.text(st.characters(codec=None), max_size=12) | st.sampled_from(["1", "acme", "true"])
)
content = st.sampled_from([None, "application/json", "application/x-protobuf"])


def with_type(given_headers: dict[str, str] | None, content_type: str | None) -> dict[str, str] | None:
    """The headers with a Content-Type, if there is one."""
    return given_headers if content_type is None else {**(given_headers or {}), "Content-Type": content_type}


def answers_whatever(data: bytes, head: dict[str, str] | None, subject: str | None) -> None:
    """Decode, and write whatever comes out of it."""
    answer = decode(data, head, subject)
    match answer:
        case DecideRequest():
            assert len(answer.fingerprint) == 8
            encode_job(answer, 1000)
        case Rejected(refused=refused, request_id=request_id, trace_id=trace_id):
            encode(refused, request_id=request_id, trace_id=trace_id)
            encode_protobuf(refused, request_id=request_id, trace_id=trace_id)


@given(st.binary(max_size=200), headers, content, st.none() | st.text(max_size=8))
def test_any_bytes_get_an_answer(
    data: bytes, head: dict[str, str] | None, content_type: str | None, subject: str | None
) -> None:
    """Whatever the bytes and headers: a request or a refusal that can be sent, never an exception."""
    answers_whatever(data, with_type(head, content_type), subject)


@given(documents, headers)
def test_any_json_gets_an_answer(doc: Any, head: dict[str, str] | None) -> None:
    """Whatever the document: a request or a refusal, never an exception."""
    answers_whatever(orjson.dumps(doc), head, None)


@given(st.sampled_from(FIELDS), documents, headers)
def test_any_value_in_any_field_gets_an_answer(field: str, value: Any, head: dict[str, str] | None) -> None:
    """A good request with one field replaced by anything, outside and in the task, context and options."""
    for doc in (
        task_shape() | {field: value},
        task_shape(task={"type": "t", field: value}),
        task_shape(context={field: value}),
        task_shape(options={field: value}),
        {"version": "1", "tenant_id": "acme", "message": {field: value}},
    ):
        answers_whatever(orjson.dumps(doc), head, None)


@pytest.mark.parametrize("read", [decode_result, decode_ack, decode_decision_query, decode_admin])
@given(st.binary(max_size=100) | documents.map(orjson.dumps), headers, content)
def test_any_report_gets_an_answer(
    read: Any, data: bytes, head: dict[str, str] | None, content_type: str | None
) -> None:
    """Results, receipts, look-ups and admin acts: a value or a refusal, never an exception."""
    read(data, with_type(head, content_type))


@pytest.mark.parametrize("read", [decode_heartbeat, decode_worker_dead_letter])
@given(data=st.binary(max_size=100) | documents.map(orjson.dumps))
def test_any_sign_of_life_gets_an_answer(read: Any, data: bytes) -> None:
    """Heartbeats and dead letters of workers: a value or a refusal, never an exception."""
    read(data)
