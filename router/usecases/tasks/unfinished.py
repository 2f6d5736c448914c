"""Unfinished decisions: written to the store, but their post extensions have not answered yet.

    unfinished ──post extensions answered──▶ finished: answer sent, task published
               ├──a required one failed──▶ undone by its pod, request refused
               └──the pod died──▶ undone after its claim expires, by a repeat of the request or, if there is a task, by
                                  the sweeper

To undo a decision means: release its leases, give back its reserved units, cancel its task, audit that, and then forget
the decision, so that the request can be tried again. Request limits stay charged. The pod that undoes it holds the
claim; if that pod crashes too, the next one starts again after the claim expires.
"""

import logging
from collections.abc import Callable

from msgspec.structs import replace

from router.domain.audit.records import TaskFeatures
from router.domain.decide.outcome import StoredAnswer
from router.domain.ids import name_in, task_id
from router.domain.policy.model import provider_entry
from router.domain.tasks.result import ResultStatus
from router.domain.tasks.task import Action, Move, TaskRecord, TaskState, Unreadable
from router.ports.decisions import Claims, DecisionStore
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.audit.features import features_of, pack_features
from router.usecases.tasks.moves import NOTHING_USED, STATUS_CODES, ending_move, split_reservations

log = logging.getLogger("router.extensions")

TAKE_MS = 5_000
POD_DIED, UNSEEN, POST_FAILED = "pod_died", "unseen", "post_failed"
_NOTES = {
    POD_DIED: "the pod died before the post extensions answered",
    UNSEEN: "no extension had received the request",
}


class Unfinished:
    """Undoes unfinished decisions. Every method raises `StoreError` if Redis does not answer; a later try repeats it.

    A decision or task that this version cannot read is left to a newer pod.
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

    async def take_over(self, tenant_id: str, decision_id: bytes, request_id: str, *, cause: str = POD_DIED) -> bool:
        """Undo an unfinished decision unless another pod holds its claim.

        True: the decision is no longer unfinished: it is undone now, or was finished or undone before. False: another
        pod works on it, or this version cannot read it.
        """
        name, claim = name_in(decision_id), self._random(16)
        if not await self._claims.take(tenant_id, name, claim=claim, claim_ms=TAKE_MS):
            return False
        remembered = await self._remembered(tenant_id, name)
        if isinstance(remembered, Unreadable):
            await self._claims.release(tenant_id, name, claim=claim)
            return False
        if remembered is not None and remembered.decision_id == decision_id and remembered.unfinished:
            return await self.undo(tenant_id, remembered, claim, request_id, cause=cause, note=_NOTES[cause])
        await self._claims.release(tenant_id, name, claim=claim)
        return True

    async def undo(
        self, tenant_id: str, remembered: StoredAnswer, claim: bytes, request_id: str, *, cause: str, note: str
    ) -> bool:
        """Undo a decision whose claim the caller holds. False: its task cannot be read, so nothing was changed."""
        (record,) = await self._tasks.records([task_id(remembered.decision_id)]) if remembered.pushed else (None,)
        if isinstance(record, Unreadable):
            log.error("task of an undone decision cannot be read: %s", record.message, extra={"event": Event.BUG})
            return False  # A newer pod may read it: that pod undoes both after the claim expires.
        if isinstance(record, TaskRecord):
            await self._tasks.move([self._cancelling_move(record, note)])
        elif not remembered.pushed:
            await self._tasks.move([_undoing_move(tenant_id, remembered, request_id, note=note)])
        await self._claims.abandon(tenant_id, remembered.decision_id, claim=claim)
        self._telemetry.decisions_undone.labels(cause).inc()
        log.warning("decision undone: %s", note, extra={"event": Event.DECISION_UNDONE, "tenant_id": tenant_id})
        return True

    async def may_publish(self, record: TaskRecord) -> bool:
        """Whether the task of an unfinished decision may be published.

        If the decision is still unfinished and its claim has expired, it is undone. If it is gone, the task is
        cancelled.
        """
        tenant_id, decision = record.facts.tenant_id, record.decision_id
        remembered = await self._remembered(tenant_id, name_in(decision))
        if isinstance(remembered, Unreadable):
            # The task stays due: a newer pod may be able to read the decision.
            return False
        if remembered is None or remembered.decision_id != decision:
            await self._tasks.move([self._cancelling_move(record, "the decision was undone")])
            return False
        if not remembered.unfinished:
            return True
        await self.take_over(tenant_id, decision, record.facts.request_id)
        return False

    async def _remembered(self, tenant_id: str, name: bytes) -> StoredAnswer | Unreadable | None:
        (remembered,) = await self._decisions.stored_answers([(tenant_id, name)])
        if isinstance(remembered, Unreadable):
            fields = {"event": Event.BUG, "tenant_id": tenant_id}
            log.error("unfinished decision cannot be read: %s", remembered.message, extra=fields)
        return remembered

    def _cancelling_move(self, record: TaskRecord, note: str) -> Move:
        """The move that cancels a task and gives back all its reserved units."""
        facts = record.facts
        corrections, _ = split_reservations(
            facts.reserved, record.provider_id, record.expected_cost_microusd, NOTHING_USED
        )
        features = features_of(record, record.attempt, status=ResultStatus.CANCELLED.value, note=note)
        move = ending_move(
            record, None, Action.RESULT_SETTLED, features, state=TaskState.CANCELLED, keep_ms=self._tombstone_ms
        )
        return replace(move, corrections=corrections, charged_ms=record.charged_ms)


def _undoing_move(tenant_id: str, remembered: StoredAnswer, request_id: str, *, note: str) -> Move:
    """The move that gives back the leases and units of a decision without a task."""
    corrections, leases = split_reservations(
        remembered.reserved, remembered.provider_id, remembered.expected_cost_microusd, NOTHING_USED
    )
    status = ResultStatus.CANCELLED.value
    features = TaskFeatures(
        request_id=request_id,
        policy_id=remembered.policy_id,
        policy_revision=remembered.policy_revision,
        provider_id=remembered.provider_id,
        assignment_id=None,
        user_id=None,
        trace_id=None,
        status=status,
        note=note,
    )
    return Move(
        tenant_id=tenant_id,
        decision_id=remembered.decision_id,
        action=Action.RESULT_SETTLED,
        features=pack_features(features),
        code=STATUS_CODES[status],
        provider_entry=provider_entry(remembered.provider_id),
        charged_ms=remembered.charged_ms,
        corrections=corrections,
        leases=leases,
    )
