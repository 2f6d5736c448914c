"""Audit records as log lines: a line says what the stored record says."""

import logging

import pytest
from msgspec.structs import replace

from router.domain.decide.decision import PinState, Reason
from router.domain.decide.outcome import Admitted, Conflict, NoCandidate, Outcome, TenantOff
from router.domain.decide.plan import plan
from router.domain.decide.request import Constraints
from router.domain.policy.model import provider
from router.usecases.audit.log_lines import AuditLines
from tests.store.harness import policy, request

POLICY = policy(
    provider("slow", priority=2, expected_latency_ms=900), provider("quick", priority=1, expected_latency_ms=90)
)


@pytest.mark.parametrize(
    "outcome",
    [
        Admitted(0, Reason.WEIGHTED, b"\0", PinState.NONE, bytes(16)),
        Conflict(),
        NoCandidate(b"\1", None),
        TenantOff(),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_a_line_names_who_broke_a_constraint(outcome: Outcome, caplog: pytest.LogCaptureFixture) -> None:
    """As the stored record does, whatever the row came to."""
    lines = AuditLines(1.0, lambda _: 5)
    lines.allow(True)
    asked = replace(request("acme", "r"), constraints=Constraints(max_latency_ms=500))
    with caplog.at_level(logging.INFO, logger="router.audit"):
        lines.decided(asked, plan(asked, POLICY), outcome)
    (line,) = caplog.records
    candidates = line.__dict__["details"]["candidates"]
    assert {"provider_id": "slow", "verdict": "constraint"} in candidates
