from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from router.domain.decide.decision import Code, Reason, Refused
from router.domain.decide.request import Correlation
from router.domain.json import JsonValue
from router.domain.tasks.result import ExecResult, ResultStatus
from router.wire.assignment import Attempt, Usage, assignment, encode_assigned_event, encode_usage_event, final_result
from router.wire.worker.job import encode_job, origin_of, request_of
from tests.wire.examples import Doc, accepted, task_shape

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ATTEMPT = Attempt("a-1", "k-1", 1, "p1", Reason.WEIGHTED, "default", 7, 250, 1500, 1000, 6000, "http://p1")


def job(**changes: Any) -> bytes:
    """The stored job of a pushed request."""
    stored = encode_job(accepted(task_shape(push_assignment=True, **changes), {"traceparent": PARENT}), 5000)
    assert isinstance(stored, bytes), stored
    return stored


def assigned(stored: bytes, attempt: Attempt = ATTEMPT) -> Any:
    """The assignment of an attempt."""
    return orjson.loads(assignment(stored, attempt)[0])


def test_an_assignment_is_written_as_the_contract_says() -> None:
    """The golden assignment, all of it."""
    stored = job(metadata={"team": "red"}, run_id="run", flow_id="f", step_id="s", idempotency_key="k")
    assert assigned(stored) == {
        "version": "1",
        "assignment_id": "a-1",
        "task_id": "k-1",
        "attempt": 1,
        "request_id": "r-1",
        "tenant_id": "acme",
        "executor": {"provider_id": "p1", "channel": "nats", "endpoint": "http://p1"},
        "job": {"type": "chat", "payload": {"text": "hello", "timeout_ms": 5000}},
        "options": {"priority": 50, "deadline_ms": 5000, "retry": {"max_attempts": 2, "backoff_ms": 200}},
        "correlation": {"trace_id": "t-1"},
        "decision": {
            "provider_id": "p1",
            "priority": 50,
            "expected_latency_ms": 250,
            "expected_cost": 0.0015,
            "reason": "weighted",
        },
        "metadata": {"team": "red"},
        "created_at_ms": 1000,
        "deadline_at_ms": 6000,
        "trace_id": "t-1",
        "run_id": "run",
        "flow_id": "f",
        "step_id": "s",
        "idempotency_key": "k",
    }


def test_headers_name_tenant_trace_version_and_traceparent() -> None:
    """What workers and tracing read without opening the payload."""
    assert assignment(job(), ATTEMPT)[1] == {
        "tenant_id": "acme",
        "trace_id": "t-1",
        "version": "1",
        "traceparent": PARENT,
    }


def test_without_a_trace_of_the_caller_an_assignment_has_none() -> None:
    """Neither trace_id nor traceparent; when tracing records, the request has that of its span by now."""
    request = accepted(task_shape(trace_id=None, push_assignment=True))
    stored = encode_job(request, 5000)
    assert isinstance(stored, bytes)
    assert assignment(stored, ATTEMPT)[1] == {"tenant_id": "acme", "version": "1"}
    recorded = replace(request, correlation=replace(request.correlation, traceparent=PARENT))
    stored = encode_job(recorded, 5000)
    assert isinstance(stored, bytes)
    assert assignment(stored, ATTEMPT)[1]["traceparent"] == PARENT


@pytest.mark.parametrize(
    ("task", "payload"),
    [
        ({"type": "t"}, {"timeout_ms": 5000}),
        ({"type": "t", "payload": {}}, {"timeout_ms": 5000}),
        ({"type": "t", "payload": {"timeout_ms": 7}}, {"timeout_ms": 7}),
        ({"type": "t", "payload": [1]}, {"value": [1]}),
        ({"type": "t", "payload": "x"}, {"value": "x"}),
        ({"type": "t", "payload": False}, {"value": False}),
        ({"type": "t", "payload_ref": "s3://x"}, {"timeout_ms": 5000}),
    ],
)
def test_the_payload_is_always_an_object(task: dict[str, Any], payload: object) -> None:
    """An object gets timeout_ms unless it has one, anything else is wrapped, nothing is {}."""
    assert assigned(job(task=task))["job"]["payload"] == payload


def test_a_reference_travels() -> None:
    """payload_ref is in the job."""
    assert assigned(job(task={"type": "t", "payload_ref": "s3://x"}))["job"]["payload_ref"] == "s3://x"


def test_the_requests_wishes_win() -> None:
    """priority and retry of the request replace the defaults."""
    options = {"priority": "high", "retry": {"max_attempts": 4, "backoff_ms": 0}}
    assert assigned(job(options=options))["options"] == {
        "priority": "high",
        "deadline_ms": 5000,
        "retry": {"max_attempts": 4, "backoff_ms": 0},
    }


@pytest.mark.parametrize("priority", ["high", "normal", "5", 5, 0, -1, 1.5])
@pytest.mark.parametrize("deadline_ms", [None, 45_000])
def test_a_priority_is_passed_on_as_it_was_sent(priority: object, deadline_ms: int | None) -> None:
    """A number stays a number, a text a text, for every attempt; a pod of the last version reads the stored job."""
    stored = job(options={"priority": priority})
    sent = assigned(stored, replace(ATTEMPT, reason=Reason.FALLBACK, deadline_ms=deadline_ms))["options"]["priority"]
    assert (sent, type(sent)) == (priority, type(priority))
    assert request_of(stored).options.priority == str(priority)


@pytest.mark.parametrize(("reason", "number"), [(Reason.STICKY, 100), (Reason.WEIGHTED, 50), (Reason.FALLBACK, 25)])
@pytest.mark.parametrize("deadline_ms", [None, 45_000])
def test_without_a_priority_that_of_the_decision_goes_out(reason: Reason, number: int, deadline_ms: int | None) -> None:
    """Of each attempt's own decision, whatever the payload says."""
    trap = {"x": '{"version":"1","options":{"priority":"normal"'}
    work = assigned(job(task={"type": "t", "payload": trap}), replace(ATTEMPT, reason=reason, deadline_ms=deadline_ms))
    assert (work["options"]["priority"], work["decision"]["priority"]) == (number, number)
    assert work["job"]["payload"]["x"] == trap["x"]


def test_a_job_of_the_last_version_is_published() -> None:
    """Its options come after the job, with the word that it used then."""
    head, body = job()[1:].split(b"\n")
    fields = orjson.loads(body)
    options = {**fields.pop("options"), "priority": "normal"}
    older = b"\x01" + head + b"\n" + orjson.dumps({**fields, "options": options})
    assert assigned(older)["options"] == {"priority": "normal", "deadline_ms": 5000, "retry": options["retry"]}


@pytest.mark.parametrize(
    ("payload", "told"),
    [({"a": 1}, {"a": 1, "timeout_ms": 45_000}), ({"timeout_ms": 5000}, {"timeout_ms": 5000}), ("x", {"value": "x"})],
)
def test_an_attempt_of_a_slower_provider_is_given_its_own_deadline(payload: JsonValue, told: Doc) -> None:
    """In options and, where dispatch has added it, in timeout_ms; nothing else differs."""
    stored = job(task={"type": "t", "payload": payload}, metadata={"m": [1.5, None]})
    usual, slow = assigned(stored), assigned(stored, replace(ATTEMPT, deadline_ms=45_000))
    assert (slow["options"].pop("deadline_ms"), usual["options"].pop("deadline_ms")) == (45_000, 5000)
    assert slow["job"].pop("payload") == told
    del usual["job"]["payload"]
    assert slow == usual


def test_the_callers_payload_is_not_touched() -> None:
    """timeout_ms is added to a copy."""
    request = accepted(task_shape())
    encode_job(request, 5000)
    assert request.payload == {"text": "hello"}


def test_the_deepest_payload_that_is_accepted_is_dispatched() -> None:
    """What `decode` lets in can be written into an assignment."""
    deep = b'{"a":' * 250 + b"1" + b"}" * 250
    request = accepted(b'{"version":"1","tenant_id":"a","task":{"type":"t","payload":' + deep + b"}}")
    stored = encode_job(request, 1)
    assert isinstance(stored, bytes)
    assert deep[5:-1] in assignment(stored, ATTEMPT)[0]


def test_a_large_payload_is_refused_with_a_way_out() -> None:
    """Over 64 KiB: PAYLOAD_TOO_LARGE, and the hint names payload_ref."""
    answer = encode_job(accepted(task_shape(task={"type": "t", "payload": "x" * 65536})), 1)
    assert isinstance(answer, Refused)
    assert answer.code is Code.INVALID_REQUEST
    assert "payload_ref" in answer.message
    assert "has 65,538 bytes; the payload of a pushed task may have 65,536" in answer.message


@pytest.mark.parametrize("payload", ["x" * 65534, {"x": "y" * 65528}])
def test_it_is_the_callers_payload_that_is_measured(payload: JsonValue) -> None:
    """64 KiB as it was sent: what dispatch puts around it, or adds to it, does not count."""
    request = accepted(task_shape(task={"type": "t", "payload": payload}))
    assert len(orjson.dumps(payload)) == 65536
    assert isinstance(encode_job(request, 5000), bytes)


def test_a_large_context_is_refused() -> None:
    """The head of the work item is bounded too, by a bound of its own that the message names."""
    answer = encode_job(accepted(task_shape(context={"a": "x" * 70_000})), 1)
    assert isinstance(answer, Refused)
    assert "context: with metadata and ids has 70," in answer.message
    assert "payload" not in answer.message


def test_the_request_comes_back_from_its_job() -> None:
    """All that the next attempt is planned by; payload and fingerprint stay behind."""
    doc = task_shape(
        push_assignment=True,
        metadata={"a": [1, None]},
        context={"session_id": "s", "user_id": "u", "status": "timeout", "ip_address": "192.0.2.1"},
        constraints={"max_cost": 1},
        options={"retry": {"max_attempts": 3}, "result_subject": "_INBOX.a", "meter": True},
        idempotency_key="k",
        message_id="m",
        assignment_subject="caf.exec.x",
    )
    request = accepted(doc)
    stored = encode_job(request, 1)
    assert isinstance(stored, bytes)
    back = request_of(stored)
    for field in request.__struct_fields__:
        if field not in {"payload", "fingerprint"}:
            assert getattr(back, field) == getattr(request, field), field


def test_a_job_of_another_format_is_told() -> None:
    """A newer version's job is an error that names its format, not a wrong assignment."""
    with pytest.raises(ValueError, match="format 02"):
        request_of(b"\x02" + job()[1:])
    with pytest.raises(ValueError, match="format none"):
        assignment(b"", ATTEMPT)


def test_the_assigned_event_holds_no_payload() -> None:
    """The golden event."""
    event = orjson.loads(
        encode_assigned_event(job(run_id="run"), ATTEMPT, subject="caf.exec.assign.v1", timestamp_ms=1001)
    )
    assert event == {
        "version": "1",
        "assignment_id": "a-1",
        "task_id": "k-1",
        "attempt": 1,
        "request_id": "r-1",
        "tenant_id": "acme",
        "provider_id": "p1",
        "policy_id": "default",
        "policy_revision": 7,
        "reason": "weighted",
        "subject": "caf.exec.assign.v1",
        "deadline_at_ms": 6000,
        "timestamp": 1001,
        "trace_id": "t-1",
        "run_id": "run",
    }


def test_usage_is_written_as_the_contract_says() -> None:
    """The golden usage event; an undispatched one has no assignment_id."""
    usage = Usage(
        "k-1", "acme", "p1", "chat", 120, 2000, ResultStatus.SUCCESS, 1001, "r-1", "a-1", 7, "k", Correlation("t")
    )
    assert orjson.loads(encode_usage_event(usage)) == {
        "version": "1",
        "usage_id": "k-1",
        "tenant_id": "acme",
        "provider_id": "p1",
        "event_type": "chat",
        "latency_ms": 120,
        "cost": 0.002,
        "status": "success",
        "timestamp": 1001,
        "assignment_id": "a-1",
        "request_id": "r-1",
        "tokens": 7,
        "trace_id": "t",
        "idempotency_key": "k",
    }
    bare = orjson.loads(encode_usage_event(Usage("d-1", "acme", "p1", "chat", 1, 0, ResultStatus.SUCCESS, 1, "r-1")))
    assert "assignment_id" not in bare


def final_of(result: ExecResult, max_bytes: int = 1 << 20, max_kept: int = 1 << 20) -> list[dict[str, Any]]:
    """What the caller gets, on a server that takes so much; then what is kept of it, if that is less."""
    forms = final_result(
        result,
        task_id="k",
        assignment_id="a",
        attempt=2,
        provider_id="p",
        origin=origin_of(job()),
        max_bytes=max_bytes,
        max_kept=max_kept,
    )
    return [orjson.loads(form) for form in forms if form is not None]


def test_an_output_too_long_to_send_does_not_cost_the_caller_its_result() -> None:
    """It is left out, and that is said; all else is there."""
    result = ExecResult(ResultStatus.SUCCESS, latency_ms=5, cost_microusd=1000, output="x" * 1000)
    short = final_of(result, 1000)[0]
    assert (short["ok"], short["truncated"], short["latency_ms"]) == (True, True, 5)
    assert "output" not in short
    whole, kept = final_of(result, max_kept=1000)
    assert (len(whole["output"]), kept) == (1000, short)


def test_the_final_result_for_the_caller() -> None:
    """The golden final result; `ok` only after a success."""
    result = ExecResult(ResultStatus.SUCCESS, latency_ms=5, cost_microusd=1000, output={"a": 1})
    (told,) = final_of(result)
    assert told == {
        "ok": True,
        "task_id": "k",
        "assignment_id": "a",
        "attempt": 2,
        "status": "success",
        "provider_id": "p",
        "output": {"a": 1},
        "latency_ms": 5,
        "cost": 0.001,
        "request_id": "r-1",
        "tenant_id": "acme",
        "trace_id": "t-1",
    }
    late = ExecResult(ResultStatus.TIMEOUT, error_code="DEADLINE")
    (told,) = final_of(late)
    assert (told["ok"], told["status"], told["error_code"], told["cost"]) == (False, "timeout", "DEADLINE", None)
