"""Decisions that are written but not done: their post extensions are still to answer.

    decided, unfinished ──post answered──▶ complete: finished, told, its task published
                        ├──a required post failed──▶ undone by its pod, the request refused
                        └──its pod died──▶ undone by whoever finds it when the claim has run out: a repeat of the
                                           request, or the sweeper when it is a task

Undone is: leases and reserved units are given back, its task is cancelled, that is audited, and then it is forgotten,
so that the request may be tried again. Whoever undoes holds the claim, and a crash on the way leaves it to the next
one. What its limits counted as requests stays spent.
"""

import logging
from collections.abc import Callable

from msgspec.structs import replace

from router.domain.audit import TaskFeatures
from router.domain.ids import name_in, task_id
from router.domain.outcome import Remembered
from router.domain.policy.model import provider_entry
from router.domain.result import ExecResult, Status
from router.domain.task import Action, Move, TaskRecord, TaskState, Unreadable
from router.ports.decisions import Claims, DecisionStore
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.audit.features import features_of, pack_features
from router.usecases.tasks.moves import STATUS_CODES, ending_move, split_reservations

log = logging.getLogger("router.extensions")

TAKE_MS = 5_000
POD_DIED, UNSEEN, POST_FAILED = "pod_died", "unseen", "post_failed"
_NOTES = {
    POD_DIED: "its pod died before the post extensions had answered",
    UNSEEN: "no extension had seen its request",
}
_UNUSED = ExecResult(Status.CANCELLED, cost_microusd=0, tokens=0)


class Unfinished:
    """Ends them. Every method raises `StoreError` when the store did not answer: it is found again later.

    What only a newer pod can read is left to that.
    """

    def __init__(
        self,
        tasks: TaskStore,
        decisions: DecisionStore,
        claims: Claims,
        telemetry: Telemetry,
        *,
        tombstone_ms: int,
        random: Callable[[int], bytes],
    ) -> None:
        self._tasks = tasks
        self._decisions = decisions
        self._claims = claims
        self._telemetry = telemetry
        self._tombstone_ms = tombstone_ms
        self._random = random

    async def take_over(self, tenant_id: str, decision_id: bytes, request_id: str, cause: str = POD_DIED) -> bool:
        """Undo an unfinished decision that nobody is at any more. False: somebody is.

        True: it is not unfinished any more: undone now, or done, or gone before.
        """
        name, claim = name_in(decision_id), self._random(16)
        if not await self._claims.take(tenant_id, name, claim, TAKE_MS):
            return False
        kept = await self._kept(tenant_id, name)
        if isinstance(kept, Unreadable):
            await self._claims.release(tenant_id, name, claim)
            return False
        if kept is not None and kept.decision_id == decision_id and kept.unfinished:
            return await self.undo(tenant_id, kept, claim, request_id, cause=cause, note=_NOTES[cause])
        await self._claims.release(tenant_id, name, claim)
        return True

    async def undo(
        self, tenant_id: str, kept: Remembered, claim: bytes, request_id: str, *, cause: str, note: str
    ) -> bool:
        """Take a decision back; `claim` is held by the caller. False: not done, since its task cannot be read here."""
        (record,) = await self._tasks.records([task_id(kept.decision_id)]) if kept.pushed else (None,)
        if isinstance(record, Unreadable):
            log.error("a task to be taken back cannot be read: %s", record.message, extra={"event": Event.BUG})
            return False  # A newer pod may read it, and takes both back when the claim has run out.
        if isinstance(record, TaskRecord):
            await self._tasks.move([self._cancelled(record, note)])
        elif not kept.pushed:
            await self._tasks.move([_taken_back(tenant_id, kept, request_id, note)])
        await self._claims.abandon(tenant_id, kept.decision_id, claim)
        self._telemetry.decisions_undone.labels(cause).inc()
        log.warning(
            "a decision was taken back: %s", note, extra={"event": Event.DECISION_UNDONE, "tenant_id": tenant_id}
        )
        return True

    async def may_publish(self, record: TaskRecord) -> bool:
        """Whether a task that waits for its post extensions may go out; one whose decision is gone is cancelled."""
        tenant_id, decision = record.facts.tenant_id, record.decision_id
        kept = await self._kept(tenant_id, name_in(decision))
        if isinstance(kept, Unreadable):
            # It stays due: a newer pod may read it.
            return False
        if kept is None or kept.decision_id != decision:
            await self._tasks.move([self._cancelled(record, "its decision was taken back")])
            return False
        if not kept.unfinished:
            return True
        await self.take_over(tenant_id, decision, record.facts.request_id)
        return False

    async def _kept(self, tenant_id: str, name: bytes) -> Remembered | Unreadable | None:
        (kept,) = await self._decisions.all_remembered([(tenant_id, name)])
        if isinstance(kept, Unreadable):
            fields = {"event": Event.BUG, "tenant_id": tenant_id}
            log.error("the answer of an unfinished decision cannot be read: %s", kept.message, extra=fields)
        return kept

    def _cancelled(self, record: TaskRecord, note: str) -> Move:
        facts = record.facts
        corrections, _ = split_reservations(facts.reserved, record.provider_id, record.expected_cost_microusd, _UNUSED)
        features = features_of(record, record.attempt, status=Status.CANCELLED.value, note=note)
        move = ending_move(
            record, None, Action.RESULT_SETTLED, features, state=TaskState.CANCELLED, keep_ms=self._tombstone_ms
        )
        return replace(move, corrections=corrections, charged_ms=record.charged_ms)


def _taken_back(tenant_id: str, kept: Remembered, request_id: str, note: str) -> Move:
    corrections, leases = split_reservations(kept.reserved, kept.provider_id, kept.expected_cost_microusd, _UNUSED)
    status = Status.CANCELLED.value
    features = TaskFeatures(
        request_id, kept.policy_id, kept.policy_revision, kept.provider_id, None, None, None, status, note=note
    )
    return Move(
        tenant_id,
        kept.decision_id,
        Action.RESULT_SETTLED,
        pack_features(features),
        STATUS_CODES[status],
        provider_entry=provider_entry(kept.provider_id),
        charged_ms=kept.charged_ms,
        corrections=corrections,
        leases=leases,
    )
