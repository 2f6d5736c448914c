"""The tenant of a request, read without the rest: never another one than the decoded request's."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.decide.request import DecideRequest
from router.wire.pb.beamline.flow.v1.flow_pb2 import Message, RouteRequest
from router.wire.request.decide import decode
from router.wire.request.peek import peek_tenant
from tests.wire.examples import message_shape, task_shape
from tests.wire.strategies import documents, headers

PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.mark.parametrize(
    "doc",
    [
        task_shape(),
        message_shape(),
        {"tenant_id": "acme", "input": "hello"},
        {"version": "1", "message": {"tenant_id": "acme", "payload": {"tenant_id": "other"}}},
        {"version": "1", "task": {"type": "chat", "payload": {"tenant_id": "other"}}, "tenant_id": "acme"},
    ],
)
def test_the_body_names_it_in_any_shape(doc: dict[str, Any]) -> None:
    """The field of the body, else of the message; not one of the payload's."""
    assert peek_tenant(orjson.dumps(doc), None, None, protobuf=False) == "acme"


@pytest.mark.parametrize("field", ["tenant_id", "legacy_tenant_id"])
def test_a_protobuf_body_names_it(field: str) -> None:
    """In the new field or the old one."""
    data = RouteRequest(message=Message(**{field: "acme"})).SerializeToString()  # type: ignore[arg-type]
    assert peek_tenant(data, PROTOBUF, None, protobuf=True) == "acme"


def test_subject_and_header_are_read_first() -> None:
    """Neither touches the body."""
    assert peek_tenant(b"nonsense", {"Tenant_Id": "acme"}, None, protobuf=False) == "acme"
    assert peek_tenant(b"nonsense", {"tenant_id": "other"}, "acme", protobuf=False) == "acme"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"nonsense", b"[]", b"null", b'{"tenant_id":7}', b'{"message":[]}', b'{"tenant_id":"\xff"}'),
        *(b'{"tenant_id":"acme"', b'{"a":' + b"[" * 100_000, b'{"tenant_id":null}', b'{"tenant_id":""}'),
    ],
)
def test_what_names_none(data: bytes) -> None:
    """Unreadable bodies are left to the decoder, in both encodings."""
    assert peek_tenant(data, None, None, protobuf=False) is None


@given(st.binary(max_size=100) | documents.map(orjson.dumps), headers, st.booleans(), st.none() | st.text(max_size=8))
def test_any_bytes_are_read(data: bytes, head: dict[str, str] | None, protobuf: bool, subject: str | None) -> None:
    """Never an exception."""
    peek_tenant(data, head, subject, protobuf=protobuf)


names = st.none() | st.sampled_from(["acme", "globex"])


@given(names, names, names, names)
def test_it_is_the_decoded_requests(
    body: str | None, inner: str | None, header: str | None, subject: str | None
) -> None:
    """Wherever the tenant is named: of a request that is accepted, the tenant that was peeked is the tenant."""
    doc = {"version": "1", "message": {} if inner is None else {"tenant_id": inner}}
    doc |= {} if body is None else {"tenant_id": body}
    head = None if header is None else {"tenant_id": header}
    data = orjson.dumps(doc)
    request = decode(data, head, subject)
    if isinstance(request, DecideRequest):
        assert peek_tenant(data, head, subject, protobuf=False) == request.tenant_id
