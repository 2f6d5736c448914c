"""Forms of a request that real callers send: each is read as what it means."""

from typing import Any

import pytest

from router.wire.pb.beamline.flow.v1.flow_pb2 import Message, RouteRequest
from tests.wire.examples import accepted, intake, message_shape, paths, refused, task_shape

PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.mark.parametrize("sent", [True, "true", "True", "TRUE", 1, 1.0, "1"])
def test_a_push_that_is_wanted(sent: object) -> None:
    """A boolean, 1, or a word in any case; in the body, and in the header of a protobuf request."""
    assert accepted(task_shape(push_assignment=sent)).push_assignment is True
    if isinstance(sent, str):
        route = RouteRequest(message=Message(message_id="m", tenant_id="acme")).SerializeToString()
        assert accepted(route, PROTOBUF | {"push_assignment": sent}).push_assignment is True


@pytest.mark.parametrize("sent", [False, "false", "False", 0, 0.0, "0", None])
def test_a_push_that_is_not_wanted(sent: object) -> None:
    """Likewise."""
    assert accepted(task_shape(push_assignment=sent)).push_assignment is False


@pytest.mark.parametrize(("sent", "read"), [(42, "42"), (-1, "-1"), (7.0, "7"), (2**63, str(2**63)), ("0042", "0042")])
@pytest.mark.parametrize("field", ["user_id", "session_id"])
def test_a_number_as_user_or_session_is_read_as_text(field: str, sent: object, read: str) -> None:
    """The same user and session as in text, so the same fingerprint."""
    r = accepted(task_shape(context={field: sent}))
    assert r.context == {field: read}
    assert r.user_id == (read if field == "user_id" else None)
    assert r.fingerprint == accepted(task_shape(context={field: read})).fingerprint
    assert r.warnings == ()


@pytest.mark.parametrize(
    "address", [5, "300.1.1.1", "example.org", "1.2.3.4\n", [], {}, True, "10.0.0.1, 10.0.0.2", "1.2.3.4:80", "x" * 999]
)
def test_a_malformed_address_is_dropped_with_a_warning(address: Any) -> None:
    """In the context and in the header; a bad header does not let the client's own word pass for the gateway's."""
    r = accepted(task_shape(context={"ip_address": address, "user_id": "u"}))
    assert (r.client_ip, r.context) == (None, {"user_id": "u"})
    assert [w.text for w in r.warnings] == ["context.ip_address is not an IP address: dropped"]
    if isinstance(address, str):
        r = accepted(task_shape(context={"ip_address": "10.0.0.1"}), {"x-client-ip": address})
        assert r.client_ip is None
        assert [w.text for w in r.warnings] == ["header x-client-ip is not an IP address: dropped"]


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:C000:0207", "192.0.2.7"),
        ("0:0:0:0:0:ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::192.0.2.7", "::c000:207"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_one_client_has_one_address(sent: str, read: str) -> None:
    """However it is written: a socket of both families writes an IPv4 client as an IPv4-mapped one."""
    assert accepted(task_shape(context={"ip_address": sent})).client_ip == read
    assert accepted(task_shape(), {"x-client-ip": sent}).client_ip == read


@pytest.mark.parametrize("header", ["idempotency-key", "idempotency_key", "Idempotency_Key", "IDEMPOTENCY-KEY"])
def test_the_key_is_read_from_either_header(header: str) -> None:
    """With a dash or an underscore; equal keys in several places are one, different ones are refused."""
    assert accepted(task_shape(), {header: "k"}).idempotency_key == "k"
    assert accepted(task_shape(idempotency_key="k"), {header: "k"}).idempotency_key == "k"
    assert intake(refused(task_shape(idempotency_key="j"), {header: "k"})) == "IDEMPOTENCY_VIOLATION"
    both = {"idempotency-key": "k", "idempotency_key": "k"}
    assert accepted(task_shape(), both).idempotency_key == "k"
    assert intake(refused(task_shape(), both | {"idempotency_key": "j"})) == "IDEMPOTENCY_VIOLATION"


@pytest.mark.parametrize("header", ["idempotency-key", "idempotency_key"])
def test_a_key_that_is_not_utf8_is_refused(header: str) -> None:
    """Different keys could become equal; dropped, the request would run twice."""
    for garbled in ("k\ufffd", "k\udc80"):
        assert paths(refused(task_shape(), {header: garbled})) == [f"header {header}"]


@pytest.mark.parametrize("in_body", [None, "", "t-1"])
def test_the_trace_of_the_header_wins(in_body: str | None) -> None:
    """Over another one in the body, in every shape."""
    assert accepted(task_shape(trace_id=in_body), {"trace_id": "t-2"}).correlation.trace_id == "t-2"
    assert accepted(message_shape(trace_id=in_body), {"Trace_ID": "t-2"}).correlation.trace_id == "t-2"
    assert refused(task_shape(trace_id=in_body, tenant_id=None), {"trace_id": "t-2"}).trace_id == "t-2"
    assert accepted(task_shape(trace_id="t-1"), {"tenant_id": "acme"}).correlation.trace_id == "t-1"


@pytest.mark.parametrize("sent", ["a\udc80", "b\ufffd", "a" * 129, "a\tb"])
def test_an_unusable_trace_in_the_header_is_dropped_beside_a_good_one(sent: str) -> None:
    """Bytes that are not UTF-8 are dropped always; a malformed id alone is refused, as in the body."""
    r = accepted(task_shape(), {"trace_id": sent})
    assert (r.correlation.trace_id, [w.defect for w in r.warnings]) == ("t-1", ["header_dropped"])
    if len(sent) == 2:
        assert accepted(task_shape(trace_id=None), {"trace_id": sent}).correlation.trace_id is None
    else:
        assert paths(refused(task_shape(trace_id=None), {"trace_id": sent})) == ["header trace_id"]


@pytest.mark.parametrize(
    ("message", "task_type"),
    [
        ({"type": "chat"}, "chat"),
        ({"type": "chat", "message_type": ""}, "chat"),
        ({"type": "chat", "message_type": None}, "chat"),
        ({"type": "chat", "message_type": "summary"}, "summary"),
        ({"type": 5, "message_type": "summary"}, "summary"),
        ({"type": 5}, "unknown"),
        ({"type": "\x00"}, "unknown"),
        ({"type": ""}, "unknown"),
    ],
)
def test_the_type_of_a_message_stands_in_for_message_type(message: dict[str, Any], task_type: str) -> None:
    """message_type wins; an unusable `type`, which was never read before, is dropped."""
    assert accepted(message_shape(message=message)).task_type == task_type


@pytest.mark.parametrize("priority", [5, 0, -3, 1.5, "high", "5", "x" * 64])
def test_a_priority_is_a_number_or_a_text(priority: object) -> None:
    """As it was sent."""
    assert accepted(task_shape(options={"priority": priority})).options.priority == priority
