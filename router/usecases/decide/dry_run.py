"""What a request would be told now: the plan, the script and the answer of a decide, and nothing is written."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from router.domain.answers import answer, unavailable
from router.domain.decision import Answer, Decided, Refused
from router.domain.extension_health import shut_out
from router.domain.extensions import refusal, wanted_of
from router.domain.figures import Snapshot
from router.domain.outcome import Admitted, Outcome, Unavailable
from router.domain.plan import Features, plan
from router.domain.policy.model import Policy, StoredPolicy
from router.domain.request import DecideRequest
from router.ports.decisions import DecisionStore
from router.ports.extensions import ExtensionStore
from router.usecases.decide.intake import DecideSettings, extensions_gated, forbidden, overlong
from router.wire.extension_views import would_run
from router.wire.job import encode_job

DryRunner = Callable[[DecideRequest, StoredPolicy], Awaitable[Answer]]
"""`DryRun.ask`."""


class DryRun:
    """Decides without deciding."""

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

    async def ask(self, request: DecideRequest, stored: StoredPolicy) -> Answer:
        """The answer with its explanation, as far as the gate allows one. Charges and audits nothing, pins nobody.

        No extension is called: what one would say of the request is not known. One that is not called now, because its
        breaker is open, refuses here as it would there.

        :raises StoreError: Redis did not tell how the extensions do.
        """
        features = self._features()
        settings = self._settings
        refused = forbidden(request, features, settings) or overlong(request, settings)
        if refused is None:
            refused = extensions_gated(stored.policy, features)
        if refused is not None:
            return refused
        wanted = replace(request, options=replace(request.options, explain=True))
        made = plan(wanted, stored, features, settings.deadlines, self._snapshot(request.tenant_id))
        if request.push_assignment:
            job = encode_job(request, made.first_deadline_ms, max_attempts=made.max_attempts)
            if isinstance(job, Refused):
                return job
        found: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def told(outcome: Outcome, _stamp: bytes) -> None:
            if not found.done():
                found.set_result(outcome)

        self._decisions.preview(wanted, made, told)
        outcome = await found
        if isinstance(outcome, Unavailable) and stored.policy.requires_extensions:
            return unavailable(wanted, sent=False)
        would = answer(outcome, wanted, made, explain=features.explain)
        return await self._with_extensions(would, wanted, stored.policy) if isinstance(outcome, Admitted) else would

    async def _with_extensions(self, told: Answer, request: DecideRequest, policy: Policy) -> Answer:
        uses = self._features().extensions and wanted_of(policy, request)
        records = await self._extensions.records() if uses else []
        step = shut_out(policy, request, records, self._decisions.now_ms(request.tenant_id))
        if step is not None:
            return refusal(step)
        if isinstance(told, Decided) and told.explain is not None:
            return replace(told, explain=told.explain | {"extensions": would_run(policy, request, records)})
        return told
