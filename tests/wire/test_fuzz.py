from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.decide.request import DecideRequest
from router.wire.admin import decode_admin
from router.wire.decision_query import decode_decision_query
from router.wire.problems import Rejected
from router.wire.reply import encode, encode_protobuf
from router.wire.request.decide import decode
from router.wire.worker.heartbeats import decode_heartbeat, decode_worker_dead_letter
from router.wire.worker.job import encode_job
from router.wire.worker.results import decode_ack, decode_result
from tests.wire.examples import task_shape
from tests.wire.strategies import FIELDS, documents, headers

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
