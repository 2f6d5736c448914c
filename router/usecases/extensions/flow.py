"""One request whose policy has extensions.

    look (replay? limits? claim) → pre → validators → the decide row → post → complete → answer → dispatch

The claim keeps duplicates from running the extensions as well: they wait for its end and then replay. A look that would
refuse goes on to the decide row, which refuses and audits. What post extensions must agree to is decided but unfinished
until they have (`usecases.tasks.unfinished`). A pod that dies on the way leaves a claim, which runs out, and at most an
unfinished decision, which is then taken back.
"""

import asyncio
import logging
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from router.domain.answers import unavailable
from router.domain.decision import Answer, Code, Decided, Refused
from router.domain.extensions import Step, explained, post_metadata, refusal, wanted, warnings, worst_ms
from router.domain.json import JsonObject
from router.domain.outcome import Admitted, Busy, Outcome, Replay, RowFault, Unavailable
from router.domain.plan import Plan
from router.domain.policy.model import StoredPolicy
from router.domain.request import DecideRequest
from router.errors import StoreError
from router.ports.decisions import Claims, DecisionStore
from router.ports.extensions import Dispatched, ExtensionResult, MakePlan, OutcomeReader
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.extensions.claim import ClaimedRequest
from router.usecases.extensions.pipeline import Pipeline
from router.usecases.tasks.unfinished import UNSEEN, Unfinished
from router.wire.job import encode_job
from router.wire.reply import decision_object

log = logging.getLogger("router.extensions")

CLAIM_MARGIN_MS = 1_000
_PAUSE_MS, _MAX_PAUSE_MS = 10, 100


class Reach(Struct, frozen=True):
    """What a request on its way needs."""

    decisions: DecisionStore
    tasks: TaskStore
    claims: Claims
    unfinished: Unfinished
    pipeline: Pipeline


class ExtensionFlow:
    """`max_ms`: how long one request may be with its extensions in all; `maximum`: how many may be at once."""

    def __init__(self, reach: Reach, telemetry: Telemetry, *, max_ms: int, maximum: int) -> None:
        self._reach = reach
        self._telemetry = telemetry
        self._max_ms = max_ms
        self._maximum = maximum
        self._running = 0

    async def answer(
        self, request: DecideRequest, stored: StoredPolicy, make_plan: MakePlan, read: OutcomeReader
    ) -> ExtensionResult:
        """The course of one request. Raises only for bugs."""
        if self._running >= self._maximum:
            details: JsonObject = {"retry_after_ms": 100}
            return ExtensionResult(
                Refused(Code.SERVICE_OVERLOADED, "too many requests are with their extensions", details)
            )
        self._running += 1
        self._telemetry.pipelines.set(self._running)
        try:
            return await _Run(self._reach, self._max_ms, request, stored, make_plan, read).answer()
        finally:
            self._running -= 1
            self._telemetry.pipelines.set(self._running)


class _Run:
    """One request on its way."""

    def __init__(
        self,
        reach: Reach,
        max_ms: int,
        request: DecideRequest,
        stored: StoredPolicy,
        make_plan: MakePlan,
        read: OutcomeReader,
    ) -> None:
        self._reach = reach
        self._request = request
        self._stored = stored
        self._make_plan = make_plan
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._worst_ms = worst_ms(stored.policy, max_ms)
        self._until = 0.0
        self._steps: list[Step] = []

    async def answer(self) -> ExtensionResult:
        request = self._request
        made = self._make_plan(request, self._stored)
        previewed, stamp = await self._preview(made)
        match previewed:
            case Admitted(decision_id=claim):
                reach = self._reach
                held = ClaimedRequest(reach.decisions, reach.tasks, reach.claims, reach.unfinished, request, claim)
                return await self._claimed(held, made)
            case Busy():
                return ExtensionResult(_still_busy(previewed))
            case Unavailable():
                # Nothing but a claim can have been written.
                return ExtensionResult(self._told(request, made, Unavailable(sent=False), stamp))
            case Replay() | RowFault():
                return ExtensionResult(self._told(request, made, previewed, stamp))
            case _:
                return await self._to_be_refused(made)

    def _told(self, request: DecideRequest, made: Plan, outcome: Outcome, stamp: bytes) -> Answer:
        """What a row came to, as an answer; never a degraded one where some extension must have agreed."""
        if isinstance(outcome, Unavailable) and self._stored.policy.requires_extensions:
            return unavailable(request, sent=outcome.sent)
        return self._read(request, made, outcome, stamp)

    async def _claimed(self, held: ClaimedRequest, made: Plan) -> ExtensionResult:
        """The time for the extensions begins with the claim, however long others had to be waited for."""
        self._until = self._loop.time() + self._worst_ms / 1000
        policy, pipeline = self._stored.policy, self._reach.pipeline
        request, self._steps = await pipeline.pre(self._request, policy.pre, self._until)
        if not any(step.stops for step in self._steps):
            self._steps += await pipeline.validate(request, policy.validators, self._until)
        stopped = next((step for step in self._steps if step.stops), None)
        if stopped is not None:
            return ExtensionResult(await held.refuse(request, made, refusal(stopped)))
        return await self._decide(held, request, self._make_plan(request, self._stored))

    async def _to_be_refused(self, made: Plan) -> ExtensionResult:
        """The decide row refuses, and audits it.

        Should it admit all the same (a limit had room again), that decision is taken back before anybody is told: no
        extension has seen the request.
        """
        request = self._request
        made = replace(made, unfinished=True)
        outcome, stamp = await self._row(request, made, None)
        if not isinstance(outcome, Admitted):
            return ExtensionResult(self._told(request, made, outcome, stamp))
        try:
            await self._reach.unfinished.take_over(request.tenant_id, outcome.decision_id, request.request_id, UNSEEN)
        except StoreError as fault:
            log.warning("a decision waits to be taken back: %s", fault, extra={"event": Event.STORE_AWAY})
        return ExtensionResult(_still_busy(Busy(_MAX_PAUSE_MS)))

    async def _preview(self, made: Plan) -> tuple[Outcome, bytes]:
        """Until it says something of this request, and no claim or unfinished decision of another is in the way."""
        request, loop, pause_ms = self._request, self._loop, _PAUSE_MS
        claim_ms = self._worst_ms + CLAIM_MARGIN_MS
        until = loop.time() + claim_ms / 1000
        while True:
            outcome, stamp = await self._preview_once(made, claim_ms)
            if isinstance(outcome, Replay) and outcome.remembered.unfinished:
                try:
                    decision = outcome.remembered.decision_id
                    if await self._reach.unfinished.take_over(request.tenant_id, decision, request.request_id):
                        continue
                except StoreError:
                    return Unavailable(sent=False), stamp
                outcome = Busy(_MAX_PAUSE_MS)
            if not isinstance(outcome, Busy) or loop.time() >= until:
                return outcome, stamp
            await asyncio.sleep(min(pause_ms, max(1, outcome.left_ms)) / 1000)
            pause_ms = min(_MAX_PAUSE_MS, 2 * pause_ms)

    async def _preview_once(self, made: Plan, claim_ms: int) -> tuple[Outcome, bytes]:
        told, done = self._caller()
        self._reach.decisions.preview(self._request, made, done, claim_ms=claim_ms)
        return await told

    async def _decide(self, held: ClaimedRequest, request: DecideRequest, made: Plan) -> ExtensionResult:
        """The decide row, and what follows it."""
        post = wanted(self._stored.policy.post, request)
        told = warnings(self._steps)
        made = replace(made, unfinished=bool(post or told))
        job: bytes | None = None
        if request.push_assignment:
            encoded = encode_job(request, made.first_deadline_ms, max_attempts=made.max_attempts)
            if isinstance(encoded, Refused):
                await held.let_go()
                return ExtensionResult(encoded)
            job = encoded
        outcome, stamp = await self._row(request, made, job)
        if isinstance(outcome, Replay) and outcome.remembered.unfinished:
            # Of a row that was sent and not answered in time: the next try takes it over.
            await held.let_go()
            return ExtensionResult(_still_busy(Busy(_MAX_PAUSE_MS)))
        found = self._told(request, made, outcome, stamp)
        if not isinstance(outcome, Admitted) or not isinstance(found, Decided):
            await held.let_go()
            return ExtensionResult(found)
        if made.unfinished:
            decision = decision_object(found.decision)
            steps = await self._reach.pipeline.post(request, decision, post, self._until)
            self._steps += steps
            metadata: JsonObject = post_metadata(steps) | ({"warnings": told} if told else {})
            failed = next((step for step in steps if step.stops), None)
            refused = (
                await held.complete(request, outcome, metadata)
                if failed is None
                else await held.undo(request, outcome, refusal(failed))
            )
            if refused is not None:
                return ExtensionResult(refused)
            found = replace(found, decision=replace(found.decision, metadata=metadata | found.decision.metadata))
        if found.explain is not None and self._steps:
            found = replace(found, explain=found.explain | {"extensions": explained(self._steps)})
        return ExtensionResult(found, None if job is None else Dispatched(request, made, outcome, job))

    async def _row(self, request: DecideRequest, made: Plan, job: bytes | None) -> tuple[Outcome, bytes]:
        told, done = self._caller()
        self._reach.decisions.decide(request, made, job, done)
        return await told

    def _caller(self) -> tuple["asyncio.Future[tuple[Outcome, bytes]]", Callable[[Outcome, bytes], None]]:
        """A row's outcome to wait for, and what the store calls with it."""
        told: asyncio.Future[tuple[Outcome, bytes]] = self._loop.create_future()

        def done(outcome: Outcome, stamp: bytes) -> None:
            if not told.done():  # whoever waited was cancelled
                told.set_result((outcome, stamp))

        return told, done


def _still_busy(busy: Busy) -> Refused:
    return Refused(
        Code.UNAVAILABLE,
        "the same request is being prepared; repeat it with the same id",
        {"retry_after_ms": max(_MAX_PAUSE_MS, busy.left_ms)},
    )
