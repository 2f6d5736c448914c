"""Requests that the tests change in one place."""

from collections.abc import Mapping
from typing import Any

import orjson

from router.domain.decide.request import DecideRequest
from router.wire.problems import Rejected
from router.wire.request.decide import decode

Doc = dict[str, Any]


def task_shape(**changes: Any) -> Doc:
    """A full task-shape request; a change to None removes the field."""
    doc: Doc = {
        "version": "1",
        "tenant_id": "acme",
        "request_id": "r-1",
        "task": {"type": "chat", "payload": {"text": "hello"}},
        "policy_id": "default",
        "context": {"session_id": "s-1", "user_id": "u-1"},
        "trace_id": "t-1",
    }
    doc |= changes
    return {k: v for k, v in doc.items() if v is not None}


def message_shape(**changes: Any) -> Doc:
    """What an HTTP gateway forwards for the same question."""
    doc: Doc = {
        "version": "1",
        "tenant_id": "acme",
        "request_id": "r-2",
        "message": {"message_id": "m-1", "message_type": "chat", "payload": {"text": "hello"}},
        "policy_id": "default",
        "context": {"session_id": "s-1", "user_id": "u-1"},
    }
    return doc | changes


def accepted(
    doc: Doc | bytes, headers: Mapping[str, str] | None = None, subject: str | None = None, **rules: Any
) -> DecideRequest:
    """The request that a document is read as; fails the test when it is refused."""
    data = doc if isinstance(doc, bytes) else orjson.dumps(doc)
    answer = decode(data, headers, subject, **rules)
    assert isinstance(answer, DecideRequest), answer
    return answer


def refused(
    doc: Doc | bytes, headers: Mapping[str, str] | None = None, subject: str | None = None, **rules: Any
) -> Rejected:
    """The refusal of a document; fails the test when it is accepted."""
    data = doc if isinstance(doc, bytes) else orjson.dumps(doc)
    answer = decode(data, headers, subject, **rules)
    assert isinstance(answer, Rejected), answer
    return answer


def paths(answer: Rejected) -> list[str]:
    """Where the problems are."""
    problems: Any = answer.refused.details["problems"]
    return [p["path"] for p in problems]


def intake(answer: Rejected) -> Any:
    """The intake error code."""
    return answer.refused.details["intake_error_code"]
