from typing import Any

import orjson
import pytest

from router.domain.decide.decision import Code
from router.domain.decide.request import Step
from router.domain.ids import from_text
from router.domain.tasks.result import (
    AckStatus,
    BreakerVerdict,
    ExecAck,
    ExecResult,
    Heartbeat,
    ResultStatus,
    WorkerDeadLetter,
    WorkerState,
    breaker_verdict,
)
from router.wire.pb.beamline.worker.v1.ack_pb2 import ExecAssignmentAck
from router.wire.pb.beamline.worker.v1.result_pb2 import ExecResult as ProtoResult
from router.wire.pb.beamline.worker.v1.result_pb2 import Job
from router.wire.problems import Rejected
from router.wire.worker.heartbeats import decode_heartbeat, decode_worker_dead_letter
from router.wire.worker.results import decode_ack, decode_result
from tests.wire.examples import paths

ID = "00070000-0000-4000-8000-000000000001"
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def bare(**changes: Any) -> dict[str, Any]:
    """A bare result; a change to None removes the field."""
    doc = {
        "version": "1",
        "assignment_id": ID,
        "request_id": "r-1",
        "status": "success",
        "provider_id": "p1",
        "job": {"type": "chat"},
        "latency_ms": 120,
        "cost": 0.002,
        "tenant_id": "acme",
    }
    return {k: v for k, v in (doc | changes).items() if v is not None}


def result(doc: Any, headers: dict[str, str] | None = None) -> ExecResult:
    """The result that a document is read as."""
    answer = decode_result(orjson.dumps(doc), headers)
    assert isinstance(answer, ExecResult), answer
    return answer


def rejected(doc: Any, headers: dict[str, str] | None = None) -> Rejected:
    """The refusal of a document."""
    answer = decode_result(orjson.dumps(doc), headers)
    assert isinstance(answer, Rejected), answer
    return answer


def test_a_bare_result_is_read_whole() -> None:
    """Every field finds its place; the cost becomes micro-USD."""
    r = result(bare(tokens=7, output={"a": 1}, trace_id="t", run_id="x", error_code="E", error_message="m\nn"))
    assert (r.assignment_id, r.status, r.job_type) == (from_text(ID), ResultStatus.SUCCESS, "chat")
    assert (r.latency_ms, r.cost_microusd, r.tokens, r.output) == (120, 2000, 7, {"a": 1})
    assert (r.tenant_id, r.provider_id) == ("acme", "p1")
    assert (r.correlation.trace_id, r.correlation.run_id, r.error_code, r.error_message) == ("t", "x", "E", "m\nn")


def test_an_enveloped_result_names_the_worker() -> None:
    """kind exec_result: the fields are in data, and provider_id is the worker's, which chooses no decision."""
    data = bare(version="1.0", job=None, job_type="chat")
    r = result({"version": "v1", "kind": "exec_result", "data": data})
    assert (r.job_type, r.provider_id) == ("chat", None)


UNNAMED = {"assignment_id": None}
FAILED = {"status": "503", "current_provider": "a"}


@pytest.mark.parametrize(
    ("context", "step"),
    [
        (FAILED, Step("503", "a")),
        ({"status": 503, "current_provider": "a", "session_id": "s", "tags": [1]}, Step("503", "a")),
        (FAILED | {"retry_attempts": 2, "retry_attempts_total": "3"}, Step("503", "a", 5)),
        ({"retry_attempts": 0}, Step()),
        ({"status": "", "current_provider": "b"}, Step(None, "b")),
        ({"status": None, "retry_attempts": None, "session_id": "s"}, None),
        ({"status": ""}, None),
        ({}, None),
        (None, None),
        ("a text", None),
        ([FAILED], None),
    ],
)
def test_a_context_tells_the_step(context: Any, step: Step | None) -> None:
    """Its fields are read as those of the request; one without any tells nothing."""
    assert result(bare(**UNNAMED, context=context)).step == step


def test_a_context_matters_only_to_who_names_a_request() -> None:
    """A malformed step of a result that names its assignment or decision costs nothing; else it is refused."""
    malformed = {"status": ["503"], "retry_attempts": -1}
    assert result(bare(context=malformed)).step is None
    assert result(bare(**UNNAMED, decision_id=ID, context=malformed)).step is None
    assert set(paths(rejected(bare(**UNNAMED, context=malformed)))) == {"context.status", "context.retry_attempts"}


@pytest.mark.parametrize("version", ["1", "1.0", "v1", None])
def test_the_versions_in_the_field_are_one(version: str | None) -> None:
    """1, 1.0, v1, and none at all."""
    assert result(bare(version=version)).status is ResultStatus.SUCCESS


def test_an_empty_text_is_as_absent() -> None:
    """As in protobuf: encoders that write every field must not lose their result or receipt; an output may be empty."""
    empty = dict.fromkeys(("request_id", "provider_id", "tenant_id", "trace_id", "error_code", "error_message"), "")
    absent = dict.fromkeys(("request_id", "provider_id", "tenant_id", "job"))
    more = {"decision_id": "", "idempotency_key": "", "run_id": "", "job": {"type": ""}, "job_type": ""}
    assert result(bare(**empty, **more), {"tenant_id": ""}) == result(bare(**absent))
    assert result(bare(output="")).output == ""
    told = {"assignment_id": ID, "status": "accepted"}
    full = told | {"request_id": "", "tenant_id": "", "message": "", "reason": "", "trace_id": ""}
    assert decode_ack(orjson.dumps(full), None) == decode_ack(orjson.dumps(told), None)
    assert paths(rejected(bare(status=""))) == ["status"]
    assert result(bare(assignment_id="")).assignment_id is None


@pytest.mark.parametrize("version", ["2", "V1", 2, 1.5, True, [1]])
def test_other_versions_are_refused(version: object) -> None:
    """With the path of the field."""
    assert paths(rejected(bare(version=version))) == ["version"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "done"),
        ("status", None),
        ("status", True),
        ("assignment_id", "not-a-uuid"),
        ("assignment_id", 5),
        ("tenant_id", "a b"),
        ("tenant_id", 5),
    ],
)
def test_what_settling_needs_is_exact(field: str, value: object) -> None:
    """A bad value is refused at its path."""
    assert paths(rejected(bare(**{field: value}))) == [field]


def test_fractions_of_milliseconds_are_rounded() -> None:
    """Workers measure in floats."""
    assert result(bare(latency_ms=12.6)).latency_ms == 13


def test_a_result_must_say_what_it_is_of() -> None:
    """An assignment, or a tenant with a request, key or decision."""
    assert paths(rejected(bare(assignment_id=None, request_id=None))) == ["assignment_id"]
    assert paths(rejected(bare(assignment_id=None, tenant_id=None))) == ["assignment_id"]
    assert result(bare(assignment_id=None)).request_id == "r-1"
    assert result(bare(assignment_id=None, request_id=None, decision_id=ID)).decision_id == from_text(ID)
    assert result(bare(assignment_id=None, request_id=None, idempotency_key="k")).idempotency_key == "k"
    assert result(bare(assignment_id=None, tenant_id=None), {"tenant_id": "acme"}).tenant_id == "acme"


def test_two_tenants_are_refused() -> None:
    """Header and body."""
    assert rejected(bare(), {"tenant_id": "other"}).refused.code is Code.UNAUTHORIZED


def test_a_bad_trace_does_not_cost_the_result() -> None:
    """Correlation that cannot be used is dropped; a number is an error code too."""
    r = result(bare(trace_id=5, error_code=503))
    assert (r.correlation.trace_id, r.error_code) == (None, "503")


def test_a_long_error_message_is_cut() -> None:
    """It is a fact, not a mistake."""
    assert len(result(bare(error_message="x" * 10_000)).error_message or "") == 4096


def test_a_protobuf_result() -> None:
    """The same facts; zero means not said."""
    proto = ProtoResult(
        assignment_id=ID, request_id="r", status="error", job=Job(type="chat"), latency_ms=5, error_code="TIMEOUT"
    )
    r = decode_result(proto.SerializeToString(), PROTOBUF)
    assert isinstance(r, ExecResult)
    assert (r.assignment_id, r.status, r.job_type, r.latency_ms) == (from_text(ID), ResultStatus.ERROR, "chat", 5)
    assert (r.cost_microusd, r.error_code) == (None, "TIMEOUT")


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (ResultStatus.SUCCESS, None, BreakerVerdict.SUCCESS),
        (ResultStatus.TIMEOUT, None, BreakerVerdict.FAILURE),
        (ResultStatus.CANCELLED, "TIMEOUT", BreakerVerdict.NEITHER),
        (ResultStatus.ERROR, None, BreakerVerdict.NEITHER),
        (ResultStatus.ERROR, "BAD_INPUT", BreakerVerdict.NEITHER),
        (ResultStatus.ERROR, "404", BreakerVerdict.NEITHER),
        (ResultStatus.ERROR, "HTTP_429", BreakerVerdict.NEITHER),
        (ResultStatus.ERROR, "5033", BreakerVerdict.NEITHER),
        (ResultStatus.ERROR, "TIMEOUT", BreakerVerdict.FAILURE),
        (ResultStatus.ERROR, "CONNECTION_ERROR", BreakerVerdict.FAILURE),
        (ResultStatus.ERROR, "PROVIDER_UNAVAILABLE", BreakerVerdict.FAILURE),
        (ResultStatus.ERROR, "SERVER_ERROR", BreakerVerdict.FAILURE),
        (ResultStatus.ERROR, "5XX", BreakerVerdict.FAILURE),
        (ResultStatus.ERROR, "5xx", BreakerVerdict.FAILURE),
        (ResultStatus.ERROR, "503", BreakerVerdict.FAILURE),
        (ResultStatus.ERROR, "HTTP_502", BreakerVerdict.FAILURE),
    ],
)
def test_what_a_result_tells_the_breaker(status: ResultStatus, code: str | None, verdict: BreakerVerdict) -> None:
    """Only the provider's own faults count."""
    assert breaker_verdict(ExecResult(status, error_code=code)) is verdict


def test_a_receipt_bare_enveloped_and_protobuf() -> None:
    """Three forms, one value; `reason` stands in for `message`."""
    fields = {"assignment_id": ID, "status": "rejected", "reason": "full", "tenant_id": "acme"}
    wanted = ExecAck(from_text(ID) or b"", AckStatus.REJECTED, "full", None, "acme", None)
    assert decode_ack(orjson.dumps(fields), None) == wanted
    enveloped = {"version": "v1", "kind": "exec_assignment_ack", "data": fields}
    assert decode_ack(orjson.dumps(enveloped), None) == wanted
    proto = ExecAssignmentAck(assignment_id=ID, status="rejected", message="full", tenant_id="acme")
    assert decode_ack(proto.SerializeToString(), PROTOBUF) == wanted


def test_a_receipt_needs_assignment_and_status() -> None:
    """Both are named at once."""
    answer = decode_ack(b"{}", None)
    assert isinstance(answer, Rejected)
    assert paths(answer) == ["assignment_id", "status"]


def test_a_heartbeat_as_existing_workers_send_it() -> None:
    """Enveloped, with a share as load."""
    data = {"worker_id": "w-1", "timestamp": "2026-01-31T12:00:00Z", "status": "busy", "load": 0.5}
    beat = decode_heartbeat(orjson.dumps({"version": "v1", "kind": "heartbeat", "data": data}))
    assert beat == Heartbeat("w-1", WorkerState.BUSY, 0.5, "2026-01-31T12:00:00Z")


@pytest.mark.parametrize("load", [True, -0.1, 1.1, "0.5"])
def test_a_load_is_a_share(load: object) -> None:
    """From 0 to 1, a number."""
    answer = decode_heartbeat(orjson.dumps({"worker_id": "w", "status": "idle", "load": load}))
    assert isinstance(answer, Rejected)
    assert paths(answer) == ["load"]


def test_a_worker_dead_letter() -> None:
    """As existing workers send it; another kind on its subject is refused."""
    data = {"reason": "PARSE_ERROR", "payload_ref": "x", "ts": 5}
    letter = decode_worker_dead_letter(orjson.dumps({"version": "v1", "kind": "dead_letter", "data": data}))
    assert letter == WorkerDeadLetter("PARSE_ERROR", "x", 5)
    other = decode_worker_dead_letter(orjson.dumps({"version": "v1", "kind": "heartbeat", "data": data}))
    assert isinstance(other, Rejected)


@pytest.mark.parametrize("tenant", ["acme", "acme.eu.west", "A_1-2"])
def test_the_subject_binds_a_report_to_its_tenant(tenant: str) -> None:
    """The body or a header may leave the tenant out, or name the same one."""
    named: list[tuple[dict[str, Any], dict[str, str] | None]] = [
        ({}, None),
        ({"tenant_id": tenant}, None),
        ({}, {"tenant_id": tenant}),
    ]
    for more, headers in named:
        by_name = {"version": "1", "status": "success", "request_id": "r"} | more
        result = decode_result(orjson.dumps(by_name), headers, tenant)
        assert isinstance(result, ExecResult)
        assert result.tenant_id == tenant
        ack = decode_ack(orjson.dumps({"assignment_id": ID, "status": "accepted"} | more), headers, tenant)
        assert isinstance(ack, ExecAck)
        assert ack.tenant_id == tenant


@pytest.mark.parametrize("subject", ["globex", "acme.eu", "acm", ".acme", "acme.", "a..b", "", "no$pe"])
def test_a_report_for_another_tenant_than_the_subjects_is_refused(subject: str) -> None:
    """In body or header, and subjects whose tenant is none: whatever the report is found by."""
    for more, headers in (({"tenant_id": "acme"}, None), ({}, {"tenant_id": "acme"})):
        for ids in ({"assignment_id": ID}, {"request_id": "r"}, {"decision_id": ID}):
            doc = {"version": "1", "status": "success"} | ids | more
            assert isinstance(decode_result(orjson.dumps(doc), headers, subject), Rejected)
        ack = {"assignment_id": ID, "status": "accepted"} | more
        assert isinstance(decode_ack(orjson.dumps(ack), headers, subject), Rejected)
