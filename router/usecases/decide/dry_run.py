"""Dry run: answer a request by the plan and the script of a decide, and write nothing."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from router.domain.decide.answers import answer, unavailable
from router.domain.decide.decision import Answer, Decided, Refused
from router.domain.decide.figures import Snapshot
from router.domain.decide.outcome import Admitted, Outcome, Unavailable
from router.domain.decide.plan import plan
from router.domain.decide.request import DecideRequest
from router.domain.extensions.health import first_blocked
from router.domain.extensions.pipeline import refusal, wanted_of
from router.domain.gate import Features
from router.domain.policy.model import Policy, StoredPolicy
from router.ports.decisions import DecisionStore
from router.ports.extensions import ExtensionStore
from router.usecases.decide.intake import DecideSettings, extensions_gated, forbidden, overlong
from router.wire.extension_views import planned_extensions
from router.wire.worker.job import encode_job

DryRunner = Callable[[DecideRequest, StoredPolicy], Awaitable[Answer]]
"""`DryRun.answer`."""


class DryRun:
    """Answers requests as a decide would, without any effect."""

    def __init__(
        self,
        decisions: DecisionStore,
        features: Callable[[], Features],
        settings: DecideSettings,
        snapshot: Callable[[str], Snapshot],
        extensions: ExtensionStore,
    ) -> None:
        self._decisions = decisions
        self._features = features
        self._settings = settings
        self._snapshot = snapshot
        self._extensions = extensions

    async def answer(self, request: DecideRequest, stored: StoredPolicy) -> Answer:
        """Answer with an explanation, as far as the gate allows one. Charges, audits and pins nothing.

        No extension is called, so its reply is unknown. A required extension whose breaker is open refuses the request,
        as it would in a decide.

        :raises StoreError: Redis did not return the health of the extensions.
        """
        features = self._features()
        settings = self._settings
        refused = forbidden(request, features, settings) or overlong(request, settings)
        if refused is None:
            refused = extensions_gated(stored.policy, features)
        if refused is not None:
            return refused
        explained = replace(request, options=replace(request.options, explain=True))
        request_plan = plan(explained, stored, features, settings.deadlines, self._snapshot(request.tenant_id))
        if request.push_assignment:
            job = encode_job(request, request_plan.first_deadline_ms, max_attempts=request_plan.max_attempts)
            if isinstance(job, Refused):
                return job
        outcome_future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome, _stamp: bytes) -> None:
            if not outcome_future.done():
                outcome_future.set_result(outcome)

        self._decisions.preview(explained, request_plan, done)
        outcome = await outcome_future
        if isinstance(outcome, Unavailable) and stored.policy.requires_extensions:
            return unavailable(explained, sent=False)
        answered = answer(outcome, explained, request_plan, explain=features.explain)
        if not isinstance(outcome, Admitted):
            return answered
        return await self._with_extensions(answered, explained, stored.policy)

    async def _with_extensions(self, answered: Answer, request: DecideRequest, policy: Policy) -> Answer:
        called = self._features().extensions and wanted_of(policy, request)
        records = await self._extensions.records() if called else []
        step = first_blocked(policy, request, records, self._decisions.now_ms(request.tenant_id))
        if step is not None:
            return refusal(step)
        if isinstance(answered, Decided) and answered.explain is not None:
            return replace(
                answered, explain=answered.explain | {"extensions": planned_extensions(policy, request, records)}
            )
        return answered
