"""The flow of one request whose policy has extensions.

    preview and claim → pre → validators → the decide row → post → complete → answer → dispatch

**Why a claim.** Extensions are slow and may have side effects, so they run once per request, outside of the atomic
decide call. The preview writes nothing but the claim, and only if the request would be admitted. While one pod holds
the claim, duplicates of the request wait; when it ends, they replay the decision.

    preview result   then
    admitted         this pod holds the claim and runs the extensions
    busy             the claim is held elsewhere: wait and preview again, at most as long as a claim lasts
    replay           answer with the stored decision; undo an unfinished one without a claim, and preview again
    a refusal        send the decide row without extensions: it refuses and writes the audit record

**Why pre and validators before the row.** Pre extensions change the request, and validators may refuse it. Neither may
charge a limit, so the decision is planned again from the changed request and made after them.

**Why post after the row, and "unfinished".** Post extensions see the decision, and a required one may reject it. Until
they have replied the decision is stored as unfinished: it holds its leases and charges, but nothing is dispatched.
`complete` finishes it and stores the metadata of post extensions and the warnings of validators. `undo` returns leases
and reserved units; what limits counted as requests stays spent.

**What survives a crash.** A pod that dies leaves a claim, which expires, and at most one unfinished decision. The next
retry of the request, or the sweeper for a task, undoes that decision (`usecases.tasks.unfinished`).
"""

import asyncio
import logging
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from router.domain.decide.answers import unavailable
from router.domain.decide.decision import Answer, Code, Decided, Refused
from router.domain.decide.outcome import (
    Admitted,
    Busy,
    Conflict,
    LimitHit,
    NoCandidate,
    Outcome,
    Replay,
    RowFault,
    TenantOff,
    Unavailable,
)
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.extensions.pipeline import (
    ExtensionStep,
    explained,
    post_metadata,
    refusal,
    wanted,
    warnings,
    worst_ms,
)
from router.domain.json import JsonObject
from router.domain.policy.model import StoredPolicy
from router.errors import StoreError
from router.ports.decisions import Claims, DecisionStore
from router.ports.extensions import Dispatched, ExtensionResult, MakePlan, OutcomeReader
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.extensions.claim import ClaimedRequest
from router.usecases.extensions.pipeline import Pipeline
from router.usecases.extensions.rows import Rows
from router.usecases.extensions.store_time import StoreTime
from router.usecases.tasks.unfinished import UNSEEN, Unfinished
from router.wire.reply import decision_object
from router.wire.worker.job import encode_job

log = logging.getLogger("router.extensions")

CLAIM_MARGIN_MS = 1_000
_PAUSE_MS, _MAX_PAUSE_MS = 10, 100


class FlowPorts(Struct, frozen=True):
    """The ports and use cases that a run needs."""

    decisions: DecisionStore
    tasks: TaskStore
    claims: Claims
    unfinished: Unfinished
    pipeline: Pipeline


class ExtensionFlow:
    """Runs requests with extensions.

    `max_ms` bounds the time that one request spends with its extensions, `wait_s` the time that it waits for the store,
    `max_running` the number of such requests.
    """

    def __init__(
        self, ports: FlowPorts, telemetry: Telemetry, *, max_ms: int, max_running: int, wait_s: float = 0.2
    ) -> None:
        self._ports = ports
        self._telemetry = telemetry
        self._max_ms = max_ms
        self._max_running = max_running
        self._wait_s = wait_s
        self._running = 0

    async def answer(
        self,
        request: DecideRequest,
        stored: StoredPolicy,
        *,
        make_plan: MakePlan,
        read: OutcomeReader,
        waited_s: float = 0.0,
    ) -> ExtensionResult:
        """Run one request to its answer. Raises only for bugs."""
        if self._running >= self._max_running:
            details: JsonObject = {"retry_after_ms": 100}
            return ExtensionResult(
                Refused(Code.SERVICE_OVERLOADED, "too many requests wait for extensions; retry later", details)
            )
        self._running += 1
        self._telemetry.pipelines.set(self._running)
        try:
            return await _Run(
                ports=self._ports,
                max_ms=self._max_ms,
                store_time=StoreTime(self._wait_s, waited_s),
                request=request,
                stored=stored,
                make_plan=make_plan,
                read=read,
            ).answer()
        finally:
            self._running -= 1
            self._telemetry.pipelines.set(self._running)


class _Run:
    """The run of one request."""

    def __init__(
        self,
        ports: FlowPorts,
        max_ms: int,
        store_time: StoreTime,
        request: DecideRequest,
        stored: StoredPolicy,
        make_plan: MakePlan,
        read: OutcomeReader,
    ) -> None:
        self._ports = ports
        self._request = request
        self._stored = stored
        self._make_plan = make_plan
        self._read = read
        self._store_time = store_time
        self._rows = Rows(ports.decisions, store_time)
        self._loop = asyncio.get_running_loop()
        self._worst_ms = worst_ms(stored.policy, max_ms)
        self._deadline = 0.0
        self._steps: list[ExtensionStep] = []

    async def answer(self) -> ExtensionResult:
        request = self._request
        plan = self._make_plan(request, self._stored)
        previewed, stamp = await self._preview(plan)
        match previewed:
            case Admitted(decision_id=claim_id):
                ports = self._ports
                claimed = ClaimedRequest(
                    decisions=ports.decisions,
                    tasks=ports.tasks,
                    claims=ports.claims,
                    unfinished=ports.unfinished,
                    store_time=self._store_time,
                    request=request,
                    claim=claim_id,
                )
                return await self._run_extensions(claimed, plan)
            case Busy():
                return ExtensionResult(_busy_refusal(previewed))
            case Unavailable():
                # A preview writes at most a claim, so a retry is safe: `sent=False`.
                return ExtensionResult(self._answer_of(request, plan, Unavailable(sent=False), stamp))
            case Replay() | RowFault():
                return ExtensionResult(self._answer_of(request, plan, previewed, stamp))
            case Conflict() | LimitHit() | NoCandidate() | TenantOff():
                return await self._refuse_by_row(plan)
            case _:
                assert_never(previewed)

    def _answer_of(self, request: DecideRequest, plan: Plan, outcome: Outcome, stamp: bytes) -> Answer:
        """Turn a row's outcome into an answer. Never a degraded one if the policy requires an extension's consent."""
        if isinstance(outcome, Unavailable) and self._stored.policy.requires_extensions:
            return unavailable(request, sent=outcome.sent)
        return self._read(request, plan, outcome, stamp)

    async def _run_extensions(self, claimed: ClaimedRequest, plan: Plan) -> ExtensionResult:
        """Run pre extensions and validators, then decide. Their time starts at the claim; earlier waiting is free."""
        self._deadline = self._loop.time() + self._worst_ms / 1000
        policy, pipeline = self._stored.policy, self._ports.pipeline
        request, self._steps = await pipeline.pre(self._request, policy.pre, self._deadline)
        if not any(step.stops for step in self._steps):
            self._steps += await pipeline.validate(request, policy.validators, self._deadline)
        stopped = next((step for step in self._steps if step.stops), None)
        if stopped is not None:
            return ExtensionResult(await claimed.refuse(request, plan, refusal(stopped)))
        return await self._decide(claimed, request, self._make_plan(request, self._stored))

    async def _refuse_by_row(self, plan: Plan) -> ExtensionResult:
        """Send the decide row of a request that the preview refused: the row refuses it again and audits the refusal.

        If the row admits it after all (a limit has room again), the decision is undone, because no extension has seen
        the request, and the caller is asked to retry.
        """
        request = self._request
        plan = replace(plan, unfinished=True)
        outcome, stamp = await self._rows.decide(request, plan, None)
        if not isinstance(outcome, Admitted):
            return ExtensionResult(self._answer_of(request, plan, outcome, stamp))
        try:
            await self._store_time.of(
                self._ports.unfinished.take_over(
                    request.tenant_id, outcome.decision_id, request.request_id, cause=UNSEEN
                )
            )
        except StoreError as fault:
            log.warning("store unavailable; a decision is undone later: %s", fault, extra={"event": Event.STORE_AWAY})
        return ExtensionResult(_busy_refusal(Busy(_MAX_PAUSE_MS)))

    async def _preview(self, plan: Plan) -> tuple[Outcome, bytes]:
        """Preview until no other claim and no unfinished decision is in the way, or a claim's time has passed."""
        request, loop, pause_ms = self._request, self._loop, _PAUSE_MS
        claim_ms = self._worst_ms + CLAIM_MARGIN_MS
        claim_until = loop.time() + claim_ms / 1000
        while True:
            outcome, stamp = await self._rows.preview(request, plan, claim_ms)
            if isinstance(outcome, Replay) and outcome.remembered.unfinished:
                try:
                    decision = outcome.remembered.decision_id
                    unfinished = self._ports.unfinished
                    if await self._store_time.of(unfinished.take_over(request.tenant_id, decision, request.request_id)):
                        continue
                except StoreError:
                    return Unavailable(sent=False), stamp
                outcome = Busy(_MAX_PAUSE_MS)
            if not isinstance(outcome, Busy) or loop.time() >= claim_until:
                return outcome, stamp
            await asyncio.sleep(min(pause_ms, max(1, outcome.left_ms)) / 1000)
            pause_ms = min(_MAX_PAUSE_MS, 2 * pause_ms)

    async def _decide(self, claimed: ClaimedRequest, request: DecideRequest, plan: Plan) -> ExtensionResult:
        """Send the decide row, run the post extensions, and complete or undo the decision."""
        post = wanted(self._stored.policy.post, request)
        validator_warnings = warnings(self._steps)
        plan = replace(plan, unfinished=bool(post or validator_warnings))
        job: bytes | None = None
        if request.push_assignment:
            encoded = encode_job(request, plan.first_deadline_ms, max_attempts=plan.max_attempts)
            if isinstance(encoded, Refused):
                await claimed.release()
                return ExtensionResult(encoded)
            job = encoded
        outcome, stamp = await self._rows.decide(request, plan, job)
        if isinstance(outcome, Replay) and outcome.remembered.unfinished:
            # Left by a row that was sent but not answered in time: the caller's retry takes it over.
            await claimed.release()
            return ExtensionResult(_busy_refusal(Busy(_MAX_PAUSE_MS)))
        answer = self._answer_of(request, plan, outcome, stamp)
        if not isinstance(outcome, Admitted) or not isinstance(answer, Decided):
            await claimed.release()
            return ExtensionResult(answer)
        if plan.unfinished:
            decision = decision_object(answer.decision)
            steps = await self._ports.pipeline.post(request, decision, post, self._deadline)
            self._steps += steps
            metadata: JsonObject = post_metadata(steps) | (
                {"warnings": validator_warnings} if validator_warnings else {}
            )
            failed = next((step for step in steps if step.stops), None)
            refused = (
                await claimed.complete(request, outcome, metadata)
                if failed is None
                else await claimed.undo(request, outcome, refusal(failed))
            )
            if refused is not None:
                return ExtensionResult(refused)
            answer = replace(answer, decision=replace(answer.decision, metadata=metadata | answer.decision.metadata))
        if answer.explain is not None and self._steps:
            answer = replace(answer, explain=answer.explain | {"extensions": explained(self._steps)})
        return ExtensionResult(answer, None if job is None else Dispatched(request, plan, outcome, job))


def _busy_refusal(busy: Busy) -> Refused:
    return Refused(
        Code.UNAVAILABLE,
        "the same request is in progress; retry it with the same id",
        {"retry_after_ms": max(_MAX_PAUSE_MS, busy.left_ms)},
    )
