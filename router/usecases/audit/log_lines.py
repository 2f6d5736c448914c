"""Audit records as log lines, in real time, for a share of the requests: told from what the pod knows, without a read.

A request is in the share with all of its records or with none. What only the script knows is not told: a breaker that
turns half open, a record's place in the log, and what a row saw of its limits unless the caller asked for explanations.
Times are Redis time as the pod estimates it.
"""

import logging
from collections.abc import Callable

from msgspec import msgpack
from xxhash import xxh3_64_intdigest

from router.domain.audit import AuditEntry, DecisionFeatures, TaskFeatures, policy_frame
from router.domain.audit_entries import CONFLICT, LIMITED, NO_CANDIDATE, TENANT_OFF, decision_entry, task_entry
from router.domain.decision import Decided
from router.domain.ids import from_text
from router.domain.outcome import NOTHING_SEEN, Admitted, Conflict, LimitHit, NoCandidate, Outcome, Seen, TenantOff
from router.domain.plan import Plan
from router.domain.request import DecideRequest
from router.domain.task import Action, BreakerTurn, Move
from router.telemetry import Event
from router.wire.audit import audit_facts

log = logging.getLogger("router.audit")

_task = msgpack.Decoder(TaskFeatures).decode
_TURNS = {BreakerTurn.OPENED: Action.BREAKER_OPENED, BreakerTurn.CLOSED: Action.BREAKER_CLOSED}
_NO_ID = bytes(16)
# The actions whose records keep `TaskFeatures`.
_STEPS = ("assignment.", "result.", "breaker.")


class AuditLines:
    """`on` says whether anything is told; callers look at it first, so that nothing is made for nothing.

    `script` is to be set to the version of the script that decides.
    """

    def __init__(self, sample: float, now_ms: Callable[[str], int]) -> None:
        self._sample = sample
        self._below = int(sample * 2**64)
        self._now_ms = now_ms
        self.script = ""
        self.on = False

    def allow(self, allowed: bool) -> None:
        """The CP gate's word."""
        self.on = allowed and self._sample > 0

    def decided(self, request: DecideRequest, plan: Plan, outcome: Outcome) -> None:
        """What a row came to; a replay was recorded before."""
        if not self._chosen(request.request_id):
            return
        match outcome:
            case Admitted(candidate, reason, verdicts, pin, decision_id, _, seen):
                made = Action.DECISION_MADE
                self._decision(request, plan, made, decision_id, reason, candidate, pin, verdicts, seen)
            case Conflict():
                self._decision(request, plan, Action.DECISION_CONFLICT, _NO_ID, CONFLICT)
            case LimitHit(charge, wait, seen, recorded) if recorded:
                third = -1 if wait is None else wait
                self._decision(request, plan, Action.DECISION_REFUSED, _NO_ID, LIMITED, charge, third, b"", seen)
            case NoCandidate(verdicts, wait, seen):
                third = -1 if wait is None else wait
                self._decision(request, plan, Action.DECISION_REFUSED, _NO_ID, NO_CANDIDATE, 0, third, verdicts, seen)
            case TenantOff():
                self._decision(request, plan, Action.DECISION_REFUSED, _NO_ID, TENANT_OFF)
            case _:
                return

    def degraded(self, request: DecideRequest, plan: Plan, decided: Decided) -> None:
        """An answer that was given without the store."""
        if self._chosen(request.request_id):
            d = decided.decision
            names = [c.provider.name for c in plan.candidates]
            decision_id = from_text(d.decision_id) or _NO_ID
            chosen = names.index(d.provider_id)
            self._decision(request, plan, Action.DECISION_DEGRADED, decision_id, d.reason, chosen)

    def moved(self, move: Move, turn: BreakerTurn) -> None:
        """A step that the store has made and recorded. A degraded decision was told when it was made."""
        if not self.on or move.action is None or not move.action.label.startswith(_STEPS):
            return
        features = _task(move.features)
        if not self._chosen(features.request_id):
            return
        for action in (move.action, _TURNS.get(turn)):
            if action is not None:
                at_us = self._now_ms(move.tenant_id) * 1000
                decision_id, attempt = move.decision_id, move.attempt if action is move.action else 0
                _say(task_entry("", at_us, move.tenant_id, action, features, decision_id=decision_id, attempt=attempt))

    def _chosen(self, request_id: str) -> bool:
        return xxh3_64_intdigest(request_id.encode()) < self._below

    def _decision(
        self,
        request: DecideRequest,
        plan: Plan,
        action: Action,
        decision_id: bytes,
        code: int,
        index: int = 0,
        third: int = -1,
        verdicts: bytes = b"",
        seen: Seen = NOTHING_SEEN,
    ) -> None:
        features = DecisionFeatures(
            request.request_id,
            request.task_type,
            request.user_id,
            request.client_ip,
            request.correlation.trace_id,
            plan.figures_version,
            policy_frame(plan, "" if action is Action.DECISION_DEGRADED else self.script),
        )
        at_us = self._now_ms(request.tenant_id) * 1000
        made = action in (Action.DECISION_MADE, Action.DECISION_DEGRADED)
        offer = plan.candidates[index].offer if made else None
        _say(
            decision_entry(
                "",
                at_us,
                request.tenant_id,
                action,
                features,
                decision_id=decision_id,
                code=code,
                index=index,
                third=third,
                verdicts=verdicts,
                seen=seen,
                offer=offer,
            )
        )


def _say(entry: AuditEntry) -> None:
    facts = audit_facts(entry)
    del facts["id"]
    log.info("%s", entry.action, extra={"event": Event.AUDIT, **facts})


SILENT = AuditLines(0.0, lambda _: 0)
"""Tells nothing."""
