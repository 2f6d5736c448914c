"""The ends that a request may come to under its claim: completed, undone, refused, or let go.

None raises: without the store the claim runs out by itself, and what could not be written then is taken back.
"""

import logging

from router.domain.answers import unavailable
from router.domain.decision import Refused
from router.domain.extensions import AUDIT_CODES
from router.domain.ids import name_in
from router.domain.json import JsonObject
from router.domain.outcome import Admitted
from router.domain.plan import Plan
from router.domain.request import DecideRequest
from router.domain.task import Action, Move
from router.errors import StoreError
from router.ports.decisions import Claims, DecisionStore
from router.ports.tasks import TaskStore
from router.telemetry import Event
from router.usecases.audit.features import features_of_decision, pack_decision_features
from router.usecases.tasks.unfinished import POST_FAILED, Unfinished

log = logging.getLogger("router.extensions")


class ClaimedRequest:
    """One request, as the store has it while its extensions run; `claim` is what it was claimed with."""

    def __init__(
        self,
        decisions: DecisionStore,
        tasks: TaskStore,
        claims: Claims,
        unfinished: Unfinished,
        request: DecideRequest,
        claim: bytes,
    ) -> None:
        self._decisions = decisions
        self._tasks = tasks
        self._claims = claims
        self._unfinished = unfinished
        self._tenant_id = request.tenant_id
        self._claim = claim

    async def complete(self, request: DecideRequest, outcome: Admitted, metadata: JsonObject) -> Refused | None:
        """Finish the decision, together with what post extensions added; None: it stands."""
        try:
            done = await self._claims.complete(self._tenant_id, outcome.decision_id, self._claim, metadata)
        except StoreError as fault:
            log.warning("a decision could not be completed: %s", fault, extra={"event": Event.STORE_AWAY})
            return unavailable(request, sent=True)
        # Not done: we were too slow, and a repeat has taken the decision back.
        return None if done else unavailable(request, sent=False)

    async def undo(self, request: DecideRequest, outcome: Admitted, refused: Refused) -> Refused:
        """A required post extension failed. What cannot be taken back now is when the claim has run out."""
        note = f"{refused.code.value}: {refused.details.get('extension_id')}"
        try:
            kept = await self._decisions.remembered(self._tenant_id, name_in(outcome.decision_id))
            if kept is not None and kept.decision_id == outcome.decision_id:
                await self._unfinished.undo(
                    self._tenant_id, kept, self._claim, request.request_id, cause=POST_FAILED, note=note
                )
        except StoreError as fault:
            log.warning("a decision waits to be taken back: %s", fault, extra={"event": Event.STORE_AWAY})
        return refused

    async def refuse(self, request: DecideRequest, made: Plan, refused: Refused) -> Refused:
        """Audited like every refusal, and the claim let go."""
        move = Move(
            self._tenant_id,
            self._claim,
            Action.DECISION_REFUSED,
            pack_decision_features(features_of_decision(request, made)),
            AUDIT_CODES[refused.code],
            note=True,
        )
        try:
            await self._tasks.move([move])
        except StoreError as fault:
            log.warning("a refusal is not in the audit: %s", fault, extra={"event": Event.STORE_AWAY})
        await self.let_go()
        return refused

    async def let_go(self) -> None:
        """Let the claim go, so that the request may be tried again at once."""
        try:
            await self._claims.release(self._tenant_id, name_in(self._claim), self._claim)
        except StoreError as fault:
            log.debug("a claim runs out by itself: %s", fault)
