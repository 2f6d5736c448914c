from typing import Any

import pytest

from tests.wire.examples import accepted, message_shape, task_shape


def test_two_shapes_that_mean_the_same_have_one_fingerprint() -> None:
    """A task and a message with the same type, payload and context: the shape does not count."""
    assert accepted(task_shape()).fingerprint == accepted(message_shape()).fingerprint


def test_key_order_does_not_count() -> None:
    """Objects have no order."""
    a = accepted(task_shape(task={"type": "t", "payload": {"a": 1, "b": {"c": 1, "d": 2}}}))
    b = accepted(task_shape(task={"payload": {"b": {"d": 2, "c": 1}, "a": 1}, "type": "t"}))
    assert a.fingerprint == b.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": "other"},
        {"trace_id": "other"},
        {"run_id": "x"},
        {"flow_id": "x"},
        {"step_id": "x"},
        {"message_id": "x"},
        {"idempotency_key": "x"},
        {"metadata": {"a": 1}},
        {"options": {}},
        {"options": {"explain": True}},
        {"constraints": {}},
        {"push_assignment": False},
        {"assignment_subject": "caf.exec.assign.v1"},
        {"context": {"session_id": "s-1", "user_id": "u-1", "ip_address": "192.0.2.1"}},
        {"context": {"session_id": "s-1", "user_id": "u-1", "trace_id": "x", "timestamp": 5}},
        {"context": {"session_id": "s-1", "user_id": "u-1", "current_provider": None, "mine": None}},
        {"unknown": 1},
        {"options": {"result_subject": "_INBOX.a"}},
    ],
)
def test_what_differs_between_two_sendings_is_not_in_it(changes: dict[str, Any]) -> None:
    """Ids, trace, timestamps, explain, the client's address, the inbox for the result, and defaults spelled out."""
    assert accepted(task_shape(**changes)).fingerprint == accepted(task_shape()).fingerprint


@pytest.mark.parametrize("attempts", [2, "2", 2.0])
@pytest.mark.parametrize("status", [503, "503"])
def test_a_step_means_the_same_as_number_and_as_text(status: object, attempts: object) -> None:
    """A protobuf context holds strings only."""
    step = {"status": "503", "current_provider": "p", "retry_attempts": 2}
    spelled = step | {"status": status, "retry_attempts": attempts}
    assert accepted(task_shape(context=spelled)).fingerprint == accepted(task_shape(context=step)).fingerprint


def test_headers_are_not_in_it() -> None:
    """A trace, an address or a key in the headers changes nothing."""
    headers = {"trace_id": "x", "x-client-ip": "192.0.2.1", "idempotency-key": "k"}
    assert accepted(task_shape(), headers).fingerprint == accepted(task_shape()).fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant_id": "other"},
        {"policy_id": "other"},
        {"task": {"type": "other", "payload": {"text": "hello"}}},
        {"task": {"type": "chat", "payload": {"text": "bye"}}},
        {"task": {"type": "chat", "payload": ["hello"]}},
        {"task": {"type": "chat", "payload_ref": "x"}},
        {"context": {"session_id": "s-2", "user_id": "u-1"}},
        {"context": {"session_id": "s-1", "user_id": "u-1", "status": "timeout"}},
        {"constraints": {"max_latency_ms": 5}},
        {"constraints": {"max_cost": 5}},
        {"push_assignment": True},
        {"assignment_subject": "caf.exec.x"},
        {"options": {"estimate": {"tokens": 1}}},
        {"options": {"estimate": {"cost": 1}}},
        {"options": {"deadline_ms": 1}},
        {"options": {"retry": {"max_attempts": 1}}},
        {"options": {"retry": {"backoff_ms": 1}}},
        {"options": {"priority": "high"}},
        {"options": {"meter": True}},
    ],
)
def test_what_may_change_the_answer_is_in_it(changes: dict[str, Any]) -> None:
    """Tenant, policy, task, constraints, context, push, subject and each option but where the result goes."""
    assert accepted(task_shape(**changes)).fingerprint != accepted(task_shape()).fingerprint


def test_it_is_the_same_on_every_pod_and_release() -> None:
    """A change of the formula would turn every stored key into a conflict: change this value only with a new schema."""
    assert accepted(task_shape()).fingerprint.hex() == "1d72da466d050796"
