"""Requests of `get_decision`, and the decision with its task."""

from typing import Any

import orjson
import pytest

from router.domain.decide.decision import Code, Decided, Decision, Reason
from router.domain.ids import from_text
from router.wire.decision_query import DecisionQuery, decode_decision_query
from router.wire.problems import Rejected
from router.wire.reply import AssignmentState, encode_stored
from tests.wire.examples import paths

ID = "00070000-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("doc", "query"),
    [
        ({"tenant_id": "a", "request_id": "r"}, DecisionQuery("a", request_id="r")),
        ({"tenant_id": "a", "idempotency_key": "k"}, DecisionQuery("a", idempotency_key="k")),
        ({"tenant_id": "a", "decision_id": ID}, DecisionQuery("a", from_text(ID))),
        ({"message_id": "m"}, DecisionQuery(None, message_id="m")),
    ],
)
def test_a_decision_is_asked_for_by_one_of_its_names(doc: dict[str, Any], query: DecisionQuery) -> None:
    """Tenant and id, or a message_id alone."""
    assert decode_decision_query(orjson.dumps(doc), None) == query


@pytest.mark.parametrize(
    ("doc", "wrong"),
    [
        ({}, ["request_id"]),
        ({"tenant_id": "a"}, ["request_id"]),
        ({"request_id": "r"}, ["tenant_id"]),
        ({"tenant_id": "a", "decision_id": "x"}, ["decision_id"]),
        ({"tenant_id": "a b", "request_id": "r"}, ["tenant_id"]),
        ({"tenant_id": "a b"}, ["tenant_id", "request_id"]),
        ({"request_id": ""}, ["request_id", "tenant_id"]),
        ({"decision_id": 5, "message_id": ""}, ["decision_id", "message_id", "tenant_id"]),
    ],
)
def test_a_vague_query_is_refused(doc: dict[str, Any], wrong: list[str]) -> None:
    """With the paths of all that is missing or wrong."""
    answer = decode_decision_query(orjson.dumps(doc), None)
    assert isinstance(answer, Rejected)
    assert paths(answer) == wrong


def test_a_query_for_two_tenants_is_refused() -> None:
    """Header and body."""
    answer = decode_decision_query(b'{"tenant_id":"a","request_id":"r"}', {"tenant_id": "b"})
    assert isinstance(answer, Rejected)
    assert answer.refused.code is Code.UNAUTHORIZED


def test_a_stored_decision_says_where_its_task_is() -> None:
    """The decision as it was answered, and the assignment beside it."""
    decided = Decided(Decision("p", Reason.WEIGHTED, 1, 2, "d", 3, "id"), assignment_id="k")
    state = AssignmentState("a", "k", 2, "running")
    said = orjson.loads(encode_stored(decided, request_id="r", trace_id=None, assignment=state))
    assert said["decision"]["decision_id"] == "id"
    assert said["assignment"] == {"assignment_id": "a", "task_id": "k", "attempt": 2, "state": "running"}
    assert said["context"] == {"request_id": "r", "assignment_id": "k"}
    assert "assignment" not in orjson.loads(encode_stored(decided, request_id="r", trace_id="t"))


@pytest.mark.parametrize("tenant", ["acme", "a.b.c", "A_1-2"])
def test_the_subject_binds_a_query_to_its_tenant(tenant: str) -> None:
    """The body may leave the tenant out, or name the same one; dots belong to it."""
    for doc in ({"request_id": "r"}, {"request_id": "r", "tenant_id": tenant}, {"message_id": "r"}):
        query = decode_decision_query(orjson.dumps(doc), None, tenant)
        assert isinstance(query, DecisionQuery)
        assert query.tenant_id == tenant


@pytest.mark.parametrize(
    ("subject", "doc", "headers"),
    [
        ("acme", {"tenant_id": "globex", "request_id": "r"}, None),
        ("acme", {"request_id": "r"}, {"tenant_id": "globex"}),
        ("acme", {"tenant_id": "acme", "message_id": "m"}, {"Tenant_Id": "globex"}),
        ("acme.eu", {"tenant_id": "acme", "decision_id": "0b0d6e5c-0000-4000-8000-000000000000"}, None),
    ],
)
def test_a_query_for_another_tenant_than_the_subjects_is_forbidden(
    subject: str, doc: dict[str, object], headers: dict[str, str] | None
) -> None:
    """Body or header against the subject, whatever the query asks by."""
    answer = decode_decision_query(orjson.dumps(doc), headers, subject)
    assert isinstance(answer, Rejected)
    assert answer.refused.code is Code.UNAUTHORIZED


@pytest.mark.parametrize("subject", [".acme", "acme.", "a..b", "", "no$pe", "ä"])
def test_a_query_subject_without_a_valid_tenant_is_refused(subject: str) -> None:
    """Also where the body names a valid one."""
    for doc in ({"request_id": "r"}, {"request_id": "r", "tenant_id": "acme"}):
        assert isinstance(decode_decision_query(orjson.dumps(doc), None, subject), Rejected)
