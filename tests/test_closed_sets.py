"""Tables over closed sets: each has an entry for every member, so a new member cannot take a default unnoticed.

What branches over a closed set is a `match` with `assert_never`, which mypy holds.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import pytest

from router.bus.publishing import puback
from router.cli.shared import exits
from router.domain import alert
from router.domain.audit import entries as audit_entries
from router.domain.audit.entries import DECISIONS, decision_entry
from router.domain.audit.records import DecisionFeatures, PolicyFrame
from router.domain.decide import decision
from router.domain.extensions import pipeline as extensions
from router.domain.policy import extensions as extension_fields
from router.domain.policy import limits as limit_fields
from router.domain.policy.vocabulary import Algorithm, WhenAllOpen
from router.domain.tasks import attempts
from router.domain.tasks.result import ResultStatus
from router.domain.tasks.task import Action, BreakerTurn
from router.ports.extensions import CallFailure
from router.store.decide import row_parts
from router.usecases.audit import log_lines
from router.usecases.extensions import pipeline
from router.usecases.tasks import result_moves
from router.wire import codes

FAILED = [called for called in extensions.CallOutcome if called.failed]
NOT_SETTLED = {puback.Verdict.FOREIGN, puback.Verdict.RETRY, puback.Verdict.NO_TTL}

TABLES: list[tuple[Mapping[Any, object], Iterable[Enum]]] = [
    (alert.ALERTS, alert.Condition),
    (codes.NUMBERS, decision.Code),
    (decision.PRIORITY, decision.Reason),
    (exits.MEANINGS, exits.Exit),
    (extension_fields._REQUIRED, extension_fields.Mode),
    (extensions._ERROR_CODES, [*FAILED, extensions.CallOutcome.REJECTED]),
    (extensions._FAILURE_TEXTS, FAILED),
    (limit_fields._SHADOW, limit_fields.Mode),
    (log_lines._TURNS, BreakerTurn),
    (pipeline._OUTCOME_OF, CallFailure),
    (puback.OUTCOMES, set(puback.Verdict) - NOT_SETTLED),
    (result_moves._STATES, ResultStatus),
    (row_parts._ALL_OPEN, WhenAllOpen),
    (row_parts._KINDS, Algorithm),
]


@pytest.mark.parametrize(("table", "members"), TABLES)
def test_a_table_has_every_member(table: Mapping[Any, object], members: Iterable[Enum]) -> None:
    """No more and no fewer."""
    assert set(table) == set(members)


def test_every_status_of_a_failed_result_has_a_stored_number() -> None:
    """What ended an attempt is stored as a number; a word without one would fail the settlement."""
    for status in set(ResultStatus) - {ResultStatus.SUCCESS}:
        assert attempts.status_of(attempts.why_status(status)) == status.value


@pytest.mark.parametrize("action", Action)
def test_only_decisions_have_an_entry_of_a_decision(action: Action) -> None:
    """Each action of a decision has its outcome; another action is a bug, and is not shown as a refusal."""

    def outcome() -> str | None:
        frame = PolicyFrame("default", 1, "h", ("a",), ())
        features = DecisionFeatures("r", "chat", None, None, None, 0, frame)
        named = {"decision_id": bytes(16), "code": audit_entries.TENANT_OFF, "index": 0, "third": 0, "verdicts": b""}
        if action in (Action.DECISION_MADE, Action.DECISION_DEGRADED):
            named["code"] = decision.Reason.WEIGHTED
        return decision_entry("1-0", 1, "acme", action, features, **named).outcome  # type: ignore[arg-type]

    if action in DECISIONS:
        assert outcome()
    else:
        with pytest.raises(AssertionError, match=r"is no decision"):
            outcome()
