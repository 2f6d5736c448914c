import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message as Proto
from hypothesis import given
from hypothesis import strategies as st

from router.wire.pb.beamline.flow.v1 import flow_pb2
from router.wire.pb.beamline.worker.v1 import ack_pb2, result_pb2
from tests.wire.examples import accepted, intake, message_shape, paths, refused

ROOT = Path(__file__).parents[3]
PROTOBUF = {"Content-Type": "application/x-protobuf"}

NUMBERS = {
    "Message": "message_id 1 legacy_tenant_id 2 legacy_trace_id 3 message_type 4 payload 5 metadata 6 timestamp_ms 7 "
    "run_id 8 flow_id 9 step_id 10 idempotency_key 11 trace_id 12 tenant_id 13",
    "RouteRequest": "message 1 policy_id 2 context 3",
    "RouteDecision": "provider_id 1 reason 2 priority 3 expected_latency_ms 4 expected_cost 5 metadata 6",
    "AdminPolicy": "policy_id 1 providers 2 sticky 3 rules 4",
    "AdminProvider": "id 1 weight 2",
    "AdminRule": "match 1 prefer 2 fallback 3",
    "UpsertPolicyRequest": "tenant_id 1 policy 2",
    "UpsertPolicyResponse": "ok 1",
    "DeletePolicyRequest": "tenant_id 1 policy_id 2",
    "DeletePolicyResponse": "ok 1",
    "GetPolicyRequest": "tenant_id 1 policy_id 2",
    "GetPolicyResponse": "policy 1",
    "ListPoliciesRequest": "tenant_id 1",
    "ListPoliciesResponse": "policies 1",
    "GetCheckpointStatusRequest": "",
    "CheckpointStatus": "current_cp 1 cp2_plus_allowed 2 updated_at_ms 3",
    "GetValidatorsHealthRequest": "tenant_id 1",
    "GetValidatorsHealthResponse": "validators 1",
    "ValidatorStatus": "name 1 status 2 timestamp_ms 3 details 4",
    "ExecAssignmentAck": "assignment_id 1 status 2 message 3 request_id 4 trace_id 5 tenant_id 6 acknowledged_at 7",
    "ExecResult": "assignment_id 1 request_id 2 status 3 provider_id 4 job 5 latency_ms 6 cost 7 trace_id 8 "
    "tenant_id 9 timestamp 10 error_code 11 error_message 12",
    "Job": "type 1 metadata 2",
}
FILES = (flow_pb2, ack_pb2, result_pb2)


def test_field_numbers_are_those_on_other_peoples_wires() -> None:
    """Every message and field number that is on other people's wires, and no other message."""
    descriptors = {n: d for f in FILES for n, d in f.DESCRIPTOR.message_types_by_name.items()}
    assert {n: " ".join(f"{f.name} {f.number}" for f in d.fields) for n, d in descriptors.items()} == NUMBERS


def test_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    """Generating again changes nothing: `make proto` was run after the last change of a .proto file."""
    target = tmp_path / "pb"
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", target], check=True, timeout=60)
    kept = ROOT / "router" / "wire" / "pb"

    def files(folder: Path) -> dict[str, str]:
        return {
            str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*.py*") if "__pycache__" not in p.parts
        }

    assert files(target) == files(kept)


texts = st.text(st.characters(codec="utf-8"), max_size=10)
maps = st.dictionaries(texts, texts, max_size=2)
int64 = st.integers(-(2**63), 2**63 - 1)
provider = st.builds(flow_pb2.AdminProvider, id=texts, weight=st.floats(allow_nan=False))
rule = st.builds(flow_pb2.AdminRule, match=texts, prefer=st.lists(texts, max_size=2), fallback=texts)
policy = st.builds(
    flow_pb2.AdminPolicy,
    policy_id=texts,
    providers=st.lists(provider, max_size=2),
    sticky=st.booleans(),
    rules=st.lists(rule, max_size=2),
)
message = st.builds(
    flow_pb2.Message,
    message_id=texts,
    payload=st.binary(max_size=10),
    metadata=maps,
    timestamp_ms=int64,
    tenant_id=texts,
)
MESSAGES: list[st.SearchStrategy[Proto]] = [
    st.builds(flow_pb2.RouteRequest, message=message, policy_id=texts, context=maps),
    st.builds(flow_pb2.RouteDecision, provider_id=texts, priority=st.integers(-(2**31), 2**31 - 1), metadata=maps),
    st.builds(flow_pb2.UpsertPolicyRequest, tenant_id=texts, policy=policy),
    st.builds(flow_pb2.UpsertPolicyResponse, ok=st.booleans()),
    st.builds(flow_pb2.DeletePolicyRequest, tenant_id=texts, policy_id=texts),
    st.builds(flow_pb2.DeletePolicyResponse, ok=st.booleans()),
    st.builds(flow_pb2.GetPolicyRequest, tenant_id=texts, policy_id=texts),
    st.builds(flow_pb2.GetPolicyResponse, policy=policy),
    st.builds(flow_pb2.ListPoliciesRequest, tenant_id=texts),
    st.builds(flow_pb2.ListPoliciesResponse, policies=st.lists(policy, max_size=2)),
    st.builds(flow_pb2.GetCheckpointStatusRequest),
    st.builds(flow_pb2.CheckpointStatus, current_cp=texts, cp2_plus_allowed=st.booleans(), updated_at_ms=int64),
    st.builds(flow_pb2.GetValidatorsHealthRequest, tenant_id=texts),
    st.builds(
        flow_pb2.GetValidatorsHealthResponse,
        validators=st.lists(st.builds(flow_pb2.ValidatorStatus, name=texts, status=texts, timestamp_ms=int64)),
    ),
]


@pytest.mark.parametrize("messages", MESSAGES, ids=lambda _: "")
@given(data=st.data())
def test_messages_survive_the_wire(messages: st.SearchStrategy[Proto], data: Any) -> None:
    """Bytes of a message read back are the same message."""
    sent = data.draw(messages)
    assert type(sent).FromString(sent.SerializeToString(deterministic=True)) == sent


def route(**fields: Any) -> bytes:
    """A RouteRequest that asks what `message_shape` asks."""
    fields = {"tenant_id": "acme", "message_id": "m-1", "message_type": "chat", "payload": b'{"text":"hello"}'} | fields
    request = flow_pb2.RouteRequest(
        message=flow_pb2.Message(**fields), policy_id="default", context={"session_id": "s-1", "user_id": "u-1"}
    )
    return request.SerializeToString()


def test_a_route_request_means_what_the_json_means() -> None:
    """The same question in protobuf and in JSON has one fingerprint."""
    r = accepted(route(run_id="run", trace_id="t", idempotency_key="k"), PROTOBUF)
    assert (r.tenant_id, r.request_id, r.task_type, r.user_id) == ("acme", "m-1", "chat", "u-1")
    assert (r.correlation.run_id, r.correlation.trace_id, r.idempotency_key) == ("run", "t", "k")
    assert r.fingerprint == accepted(message_shape()).fingerprint


def test_older_encoders_set_fields_2_and_3() -> None:
    """Tenant and trace are found there too, and two different tenants are refused."""
    r = accepted(route(tenant_id="", legacy_tenant_id="acme", legacy_trace_id="t"), PROTOBUF)
    assert (r.tenant_id, r.correlation.trace_id) == ("acme", "t")
    assert intake(refused(route(legacy_tenant_id="other"), PROTOBUF)) == "TENANT_FORBIDDEN"


@pytest.mark.parametrize(
    ("payload", "value"),
    [(b"", {}), (b"[1]", [1]), (b"\xff\x00", {"base64": "/wA="}), (b"plain", {"base64": "cGxhaW4="})],
)
def test_payload_bytes_become_json(payload: bytes, value: object) -> None:
    """JSON bytes are that JSON, other bytes are base64, none are {}."""
    assert accepted(route(payload=payload), PROTOBUF).payload == value


def test_push_comes_by_header_only() -> None:
    """A RouteRequest has no field for it."""
    assert accepted(route(), PROTOBUF | {"push_assignment": "true"}).push_assignment is True
    assert accepted(route(), PROTOBUF).push_assignment is False
    assert paths(refused(route(), PROTOBUF | {"push_assignment": "yes"})) == ["push_assignment"]


def test_retry_attempts_may_be_text() -> None:
    """A protobuf context holds strings only."""
    request = flow_pb2.RouteRequest(
        message=flow_pb2.Message(tenant_id="acme"), context={"retry_attempts": "2", "status": "503"}
    )
    step = accepted(request.SerializeToString(), PROTOBUF).step
    assert (step.status, step.retry_attempts) == ("503", 2)


def test_bytes_that_are_no_route_request_are_told() -> None:
    """Broken protobuf is one clear refusal, and so is an empty body."""
    assert "RouteRequest" in refused(b"\xff\xff\xff", PROTOBUF).refused.message
    assert "empty" in refused(b"", PROTOBUF).refused.message
