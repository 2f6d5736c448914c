"""Audit records as log lines, in real time, for a sample of the requests.

The lines come from what the pod knows, without a read from Redis. A request is logged with all of its records or with
none. Facts that only the script knows are missing: a breaker that turns half open, and a record's place in the log.
What a row saw of its limits is there only if the caller asked for explanations. Times are Redis time as the pod
estimates it.
"""

import logging
from collections.abc import Callable
from typing import assert_never

from msgspec import msgpack
from xxhash import xxh3_64_intdigest

from router.domain.audit.entries import CONFLICT, LIMITED, NO_CANDIDATE, TENANT_OFF, decision_entry, task_entry
from router.domain.audit.records import AuditEntry, TaskFeatures
from router.domain.decide.decision import Decided
from router.domain.decide.outcome import (
    NOTHING_OBSERVED,
    Admitted,
    Busy,
    Conflict,
    LimitHit,
    NoCandidate,
    Observations,
    Outcome,
    Replay,
    RowFault,
    TenantOff,
    Unavailable,
)
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.ids import from_text
from router.domain.tasks.task import Action, BreakerTurn, Move
from router.telemetry import Event
from router.usecases.audit.features import features_of_decision
from router.wire.audit import audit_facts

log = logging.getLogger("router.audit")

_task = msgpack.Decoder(TaskFeatures).decode
_TURNS = {
    BreakerTurn.UNCHANGED: None,
    BreakerTurn.OPENED: Action.BREAKER_OPENED,
    BreakerTurn.HALF_OPENED: None,  # only the script knows the request that found it so
    BreakerTurn.CLOSED: Action.BREAKER_CLOSED,
}
_NO_ID = bytes(16)
# Prefixes of the actions whose records hold `TaskFeatures`.
_STEPS = ("assignment.", "result.", "breaker.")


class AuditLines:
    """Writes the log lines. `sample`: share of requests, 0 to 1.

    Callers check `on` first and skip the work of a call when it is False. `script`: version of the decide script; the
    pod sets it.
    """

    def __init__(self, sample: float, now_ms: Callable[[str], int]) -> None:
        self._sample = sample
        self._below = int(sample * 2**64)
        self._now_ms = now_ms
        self.script = ""
        self.on = False

    def allow(self, allowed: bool) -> None:
        """Switch the lines on or off as the CP gate permits."""
        self.on = allowed and self._sample > 0

    def decided(self, request: DecideRequest, plan: Plan, outcome: Outcome) -> None:
        """Log the outcome of a decide row. A replay writes no line: its first answer was logged."""
        if not self._chosen(request.request_id):
            return
        match outcome:
            case Admitted(candidate, reason, verdicts, pin, decision_id, _, seen):
                self._decision(
                    request,
                    plan,
                    Action.DECISION_MADE,
                    decision_id=decision_id,
                    code=reason,
                    index=candidate,
                    third=pin,
                    verdicts=verdicts,
                    seen=seen,
                )
            case Conflict():
                self._decision(request, plan, Action.DECISION_CONFLICT, code=CONFLICT)
            case LimitHit(charge, wait, seen, recorded) if recorded:
                third = -1 if wait is None else wait
                self._decision(
                    request, plan, Action.DECISION_REFUSED, code=LIMITED, index=charge, third=third, seen=seen
                )
            case NoCandidate(verdicts, wait, seen):
                third = -1 if wait is None else wait
                self._decision(
                    request,
                    plan,
                    Action.DECISION_REFUSED,
                    code=NO_CANDIDATE,
                    third=third,
                    verdicts=verdicts,
                    seen=seen,
                )
            case TenantOff():
                self._decision(request, plan, Action.DECISION_REFUSED, code=TENANT_OFF)
            case LimitHit() | Replay() | Busy() | RowFault() | Unavailable():
                return
            case _:
                assert_never(outcome)

    def degraded(self, request: DecideRequest, plan: Plan, decided: Decided) -> None:
        """Log a decision that was made without the store."""
        if self._chosen(request.request_id):
            d = decided.decision
            names = [c.provider.name for c in plan.candidates]
            self._decision(
                request,
                plan,
                Action.DECISION_DEGRADED,
                decision_id=from_text(d.decision_id) or _NO_ID,
                code=d.reason,
                index=names.index(d.provider_id),
            )

    def moved(self, move: Move, turn: BreakerTurn) -> None:
        """Log a move that the store has applied and recorded. A degraded decision was logged when it was made."""
        if not self.on or move.action is None or not move.action.label.startswith(_STEPS):
            return
        features = _task(move.features)
        if not self._chosen(features.request_id):
            return
        for action in (move.action, _TURNS[turn]):
            if action is not None:
                at_us = self._now_ms(move.tenant_id) * 1000
                entry = task_entry(
                    entry_id="",
                    ts_us=at_us,
                    tenant_id=move.tenant_id,
                    action=action,
                    f=features,
                    decision_id=move.decision_id,
                    attempt=move.attempt if action is move.action else 0,
                )
                _log(entry)

    def _chosen(self, request_id: str) -> bool:
        return xxh3_64_intdigest(request_id.encode()) < self._below

    def _decision(
        self,
        request: DecideRequest,
        plan: Plan,
        action: Action,
        *,
        code: int,
        decision_id: bytes = _NO_ID,
        index: int = 0,
        third: int = -1,
        verdicts: bytes = b"",
        seen: Observations = NOTHING_OBSERVED,
    ) -> None:
        """Log a decision's entry; `decision_entry` describes `code`, `index` and `third`."""
        script = "" if action is Action.DECISION_DEGRADED else self.script
        at_us = self._now_ms(request.tenant_id) * 1000
        admitted = action in (Action.DECISION_MADE, Action.DECISION_DEGRADED)
        offer = plan.candidates[index].offer if admitted else None
        _log(
            decision_entry(
                entry_id="",
                ts_us=at_us,
                tenant_id=request.tenant_id,
                action=action,
                f=features_of_decision(request, plan, script),
                decision_id=decision_id,
                code=code,
                index=index,
                third=third,
                verdicts=verdicts,
                seen=seen,
                offer=offer,
            )
        )


def _log(entry: AuditEntry) -> None:
    facts = audit_facts(entry)
    del facts["id"]
    log.info("%s", entry.action, extra={"event": Event.AUDIT, **facts})


SILENT = AuditLines(0.0, lambda _: 0)
"""Writes no lines."""
