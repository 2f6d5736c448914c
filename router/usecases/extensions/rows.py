"""The rows of one request with extensions: each is sent, and its outcome awaited within the time for the store."""

import asyncio
from collections.abc import Callable

from router.domain.decide.outcome import Outcome
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.ports.decisions import DecisionStore
from router.usecases.extensions.store_time import StoreTime


class Rows:
    """Sends rows and returns their outcome, with the tenant's current stamp."""

    def __init__(self, decisions: DecisionStore, store_time: StoreTime) -> None:
        self._decisions = decisions
        self._store_time = store_time

    async def preview(self, request: DecideRequest, plan: Plan, claim_ms: int) -> tuple[Outcome, bytes]:
        """Send a row that writes nothing but a claim for `claim_ms`."""
        outcome_future, done = _outcome_future()
        self._decisions.preview(request, plan, done, claim_ms=claim_ms, since=self._store_time.since)
        return await self._store_time.spent_on(outcome_future)

    async def decide(self, request: DecideRequest, plan: Plan, job: bytes | None) -> tuple[Outcome, bytes]:
        """Send the decide row."""
        outcome_future, done = _outcome_future()
        self._decisions.decide(request, plan, job, done, self._store_time.since)
        return await self._store_time.spent_on(outcome_future)


def _outcome_future() -> tuple["asyncio.Future[tuple[Outcome, bytes]]", Callable[[Outcome, bytes], None]]:
    """A future for a row's outcome, and the callback for the store that resolves it."""
    outcome_future: asyncio.Future[tuple[Outcome, bytes]] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome, stamp: bytes) -> None:
        if not outcome_future.done():  # it is done if the waiting task was cancelled
            outcome_future.set_result((outcome, stamp))

    return outcome_future, done
