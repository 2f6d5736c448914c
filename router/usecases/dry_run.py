"""What a request would be told now: the plan, the script and the answer of a decide, and nothing is written."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from router.domain.answers import answer
from router.domain.decision import Answer, Refused
from router.domain.figures import Snapshot
from router.domain.outcome import Outcome
from router.domain.plan import Features, plan
from router.domain.policy import StoredPolicy
from router.domain.request import DecideRequest
from router.ports.decisions import DecisionStore
from router.usecases.intake import DecideSettings, extensions_gated, forbidden, overlong
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
    ) -> None:
        self._decisions = decisions
        self._features = features
        self._settings = settings
        self._snapshot = snapshot

    async def ask(self, request: DecideRequest, stored: StoredPolicy) -> Answer:
        """The answer with its explanation, as far as the gate allows one. Charges and audits nothing, pins nobody."""
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
            job = encode_job(request, made.deadline_ms, max_attempts=made.max_attempts)
            if isinstance(job, Refused):
                return job
        found: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def told(outcome: Outcome, _stamp: bytes) -> None:
            if not found.done():
                found.set_result(outcome)

        self._decisions.look(wanted, made, told)
        return answer(await found, wanted, made, explain=features.explain)
