from typing import Any

import orjson
import pytest

from router.domain.decide.decision import PRIORITY, Code, Decided, Decision, Reason, Refused
from router.wire.codes import NUMBERS, legacy
from router.wire.pb.beamline.flow.v1.flow_pb2 import RouteDecision
from router.wire.reply import encode, encode_protobuf

DECISION = Decision("p1", Reason.WEIGHTED, 250, 1500, "default", 7, "00000000-0000-4000-8000-000000000001")
MAXIMUM = 64 * 1024


def reply(answer: Any, **rules: Any) -> Any:
    """The reply, read back."""
    return orjson.loads(encode(answer, request_id="r-1", trace_id="t-1", **rules))


def test_a_decision_is_written_as_the_contract_says() -> None:
    """The golden reply: USD, the reason's word and priority, no optional field that says nothing."""
    data = encode(Decided(DECISION), request_id="r-1", trace_id=None)
    assert data == (
        b'{"ok":true,"decision":{"provider_id":"p1","priority":50,"reason":"weighted","expected_latency_ms":250,'
        b'"expected_cost":0.0015,"policy_id":"default","policy_revision":7,'
        b'"decision_id":"00000000-0000-4000-8000-000000000001"},"context":{"request_id":"r-1"}}'
    )


def test_what_there_is_is_said() -> None:
    """Every optional field of a decision and of its context."""
    decision = Decision("p", Reason.STICKY, 1, 2, "d", 3, "id", "s-1", True, True, {"requires_cp": ["pins"]})
    said = reply(Decided(decision, True, "a-1", {"why": "so"}))
    assert said["decision"]["sticky_key"] == "s-1"
    assert said["decision"]["fallback_used"] is True
    assert said["decision"]["degraded"] is True
    assert said["decision"]["metadata"] == {"requires_cp": ["pins"]}
    assert said["context"] == {
        "request_id": "r-1",
        "trace_id": "t-1",
        "replayed": True,
        "assignment_id": "a-1",
        "explain": {"why": "so"},
    }


@pytest.mark.parametrize(("reason", "priority"), [*PRIORITY.items()])
def test_every_reason_has_its_word_and_priority(reason: Reason, priority: int) -> None:
    """The number that is stored and the word that is said belong together."""
    decision = reply(Decided(Decision("p", reason, 0, 0, "d", 1, "id")))["decision"]
    assert (decision["reason"], decision["priority"]) == (reason.name.lower(), priority)


def test_a_refusal_is_written_as_the_contract_says() -> None:
    """The golden refusal: intake_error_code is null in the error, the true one is in the details."""
    refusal = Refused(Code.INVALID_REQUEST, "no", {"intake_error_code": "VERSION_UNSUPPORTED"})
    assert encode(refusal, request_id=None, trace_id="t") == (
        b'{"ok":false,"error":{"code":"invalid_request","message":"no","intake_error_code":null,'
        b'"details":{"intake_error_code":"VERSION_UNSUPPORTED"}},"context":{"request_id":null,"trace_id":"t"}}'
    )


@pytest.mark.parametrize("code", list(Code))
def test_an_older_gateway_gets_codes_that_it_knows(code: Code) -> None:
    """With legacy codes every reply has a known one, and the true one in details.code when they differ."""
    known = {
        "invalid_request", "unauthorized", "policy_not_found", "extension_not_found", "decision_failed", "internal",
        "post_processor_failed", "extension_error", "extension_unavailable",
    }  # fmt: skip
    error = reply(Refused(code, "m", {"a": 1}), legacy_codes=True)["error"]
    assert error["code"] in known
    assert error["details"].get("code", error["code"]) == code.value
    assert error["details"]["a"] == 1


def test_every_code_has_its_numbers() -> None:
    """The table of HTTP and gRPC numbers is complete, and mapping twice changes nothing."""
    assert set(NUMBERS) == set(Code)
    assert all(legacy(legacy(code)) is legacy(code) for code in Code)


@pytest.mark.parametrize(
    "answer",
    [
        Decided(DECISION, explain={"candidates": ["x" * 100] * 2000}),
        Decided(Decision("p", Reason.STICKY, 1, 2, "d", 3, "id", "s" * 100_000)),
        Decided(Decision("p", Reason.STICKY, 1, 2, "d", 3, "id", metadata={"a": "x" * 100_000})),
        Refused(Code.DECISION_FAILED, "m", {"candidates": [{"provider_id": "p" * 200}] * 1000, "retry_after_ms": 5}),
        Refused(Code.DECISION_FAILED, "m", {"candidates": ["x" * 100_000], "retry_after_ms": 5}),
        Refused(Code.DECISION_FAILED, "x" * 100_000, {"retry_after_ms": 5}),
        Refused(Code.DECISION_FAILED, "m", {"retry_after_ms": 5, **{f"k{i}": "ä" * 1000 for i in range(100)}}),
    ],
)
def test_a_reply_is_never_64_kib(answer: Any) -> None:
    """What is too long is left out and marked; what the caller acts on stays."""
    data = encode(answer, request_id="r-1", trace_id=None)
    assert len(data) < MAXIMUM
    said = orjson.loads(data)
    assert said["context"]["request_id"] == "r-1"
    assert "truncated" in data.decode()
    if isinstance(answer, Refused):
        assert said["error"]["details"]["retry_after_ms"] == 5
    else:
        assert said["decision"]["decision_id"] == answer.decision.decision_id


def test_a_list_is_cut_before_it_is_dropped() -> None:
    """The first candidates still say why."""
    said = reply(Refused(Code.DECISION_FAILED, "m", {"candidates": [{"provider_id": "p" * 200}] * 1000}))
    assert len(said["error"]["details"]["candidates"]) == 20


def test_a_protobuf_decision() -> None:
    """A RouteDecision with the same facts; what has no field is in the metadata, as text."""
    data, headers = encode_protobuf(Decided(DECISION, True, "a-1"), request_id="r-1", trace_id="t-1")
    route = RouteDecision.FromString(data)
    assert headers == {"Content-Type": "application/x-protobuf", "request_id": "r-1", "trace_id": "t-1"}
    assert (route.provider_id, route.reason, route.priority) == ("p1", "weighted", 50)
    assert (route.expected_latency_ms, route.expected_cost) == (250, 0.0015)
    assert route.metadata["decision_id"] == DECISION.decision_id
    assert (route.metadata["replayed"], route.metadata["assignment_id"]) == ("true", "a-1")


def test_a_protobuf_refusal_is_in_the_headers() -> None:
    """Empty body; HTTP number, message on one line, code."""
    data, headers = encode_protobuf(Refused(Code.QUOTA_EXCEEDED, "no\r\nway"), request_id="r", trace_id=None)
    assert data == b""
    assert headers["Nats-Service-Error-Code"] == "429"
    assert headers["x-error-code"] == "quota_exceeded"
    assert "\n" not in headers["Nats-Service-Error"]
