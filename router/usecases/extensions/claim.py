"""The four ways in which a claimed request ends: completed, undone, refused, or released.

None of them raises. While the store is unavailable the claim expires by itself, and `usecases.tasks.unfinished` then
undoes the decision that could not be completed.
"""

import logging

from router.domain.decide.answers import unavailable
from router.domain.decide.decision import Refused
from router.domain.decide.outcome import Admitted
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.extensions.pipeline import AUDIT_CODES
from router.domain.ids import name_in
from router.domain.json import JsonObject
from router.domain.tasks.task import Action, Move
from router.errors import StoreError
from router.ports.decisions import Claims, DecisionStore
from router.ports.tasks import TaskStore
from router.telemetry import Event
from router.usecases.audit.features import features_of_decision, pack_decision_features
from router.usecases.extensions.store_time import StoreTime
from router.usecases.tasks.unfinished import POST_FAILED, Unfinished

log = logging.getLogger("router.extensions")


class ClaimedRequest:
    """A request that this pod has claimed while its extensions run; `claim` is the claim's id."""

    def __init__(
        self,
        decisions: DecisionStore,
        tasks: TaskStore,
        claims: Claims,
        unfinished: Unfinished,
        store_time: StoreTime,
        request: DecideRequest,
        claim: bytes,
    ) -> None:
        self._decisions = decisions
        self._tasks = tasks
        self._claims = claims
        self._unfinished = unfinished
        self._store_time = store_time
        self._tenant_id = request.tenant_id
        self._claim = claim

    async def complete(self, request: DecideRequest, outcome: Admitted, metadata: JsonObject) -> Refused | None:
        """Complete the decision, with the metadata of the post extensions. None: done; else the refusal."""
        try:
            completed = await self._store_time.of(
                self._claims.complete(self._tenant_id, outcome.decision_id, claim=self._claim, metadata=metadata)
            )
        except StoreError as fault:
            log.warning("store unavailable; a decision was not completed: %s", fault, extra={"event": Event.STORE_AWAY})
            return unavailable(request, sent=True)
        # False: the claim expired first, and a retry of the request has undone the decision.
        return None if completed else unavailable(request, sent=False)

    async def undo(self, request: DecideRequest, outcome: Admitted, refused: Refused) -> Refused:
        """Undo the decision after a required post extension failed.

        While the store is unavailable the decision stays and is undone after the claim has expired.
        """
        note = f"{refused.code.value}: {refused.details.get('extension_id')}"
        try:
            remembered = await self._store_time.of(
                self._decisions.remembered(self._tenant_id, name_in(outcome.decision_id))
            )
            if remembered is not None and remembered.decision_id == outcome.decision_id:
                await self._store_time.of(
                    self._unfinished.undo(
                        self._tenant_id, remembered, self._claim, request.request_id, cause=POST_FAILED, note=note
                    )
                )
        except StoreError as fault:
            log.warning("store unavailable; a decision is undone later: %s", fault, extra={"event": Event.STORE_AWAY})
        return refused

    async def refuse(self, request: DecideRequest, plan: Plan, refused: Refused) -> Refused:
        """Audit the refusal, like every other, and release the claim."""
        move = Move(
            tenant_id=self._tenant_id,
            decision_id=self._claim,
            action=Action.DECISION_REFUSED,
            features=pack_decision_features(features_of_decision(request, plan)),
            code=AUDIT_CODES[refused.code],
            note=True,
        )
        try:
            await self._store_time.of(self._tasks.move([move], replicated=False))
        except StoreError as fault:
            log.warning("store unavailable; a refusal is not audited: %s", fault, extra={"event": Event.STORE_AWAY})
        await self.release()
        return refused

    async def release(self) -> None:
        """Release the claim, so that a retry of the request need not wait."""
        try:
            await self._store_time.of(self._claims.release(self._tenant_id, name_in(self._claim), claim=self._claim))
        except StoreError as fault:
            log.debug("store unavailable; a claim expires by itself: %s", fault)
