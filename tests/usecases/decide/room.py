"""The use case, and all that is around it, for tests."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from router.domain.decide.outcome import Admitted
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.gate import ALL_FEATURES
from router.domain.policy.model import StoredPolicy, TenantPolicies
from router.errors import LoadsFull
from router.ports.extensions import ExtensionResult, MakePlan, OutcomeReader
from router.ports.policies import Loading
from router.telemetry import Telemetry
from router.tracing import Tracing
from router.usecases.decide.decide import Decide
from router.usecases.decide.intake import DecideSettings
from router.usecases.decide.outcomes import Outcomes
from router.usecases.decide.standstill import Standstill
from router.wire.policies import decode
from tests.usecases.fakes.decisions import Store
from tests.usecases.fakes.policies import ONE

STAMP = b"stamp..1"
POLICIES = TenantPolicies("acme", 1, STAMP, {"default": StoredPolicy("default", 1, "h", decode(ONE).policy)})


class Policies:
    """What the cache says, and what a load comes to."""

    def __init__(self) -> None:
        self.cached: TenantPolicies | Loading | None = POLICIES
        self.loaded: TenantPolicies | Exception | None = POLICIES
        self.seen: list[bytes] = []
        self.old = False

    def may_be_outdated(self, tenant_id: str) -> bool:
        """Until the next load."""
        return self.old

    def get(self, tenant_id: str) -> TenantPolicies | Loading | None:
        """From the cache."""
        return self.cached

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """From the store."""
        return await self.begin_load(tenant_id)

    def begin_load(self, tenant_id: str) -> "asyncio.Future[TenantPolicies | None]":
        """From the store."""
        self.old = False
        if isinstance(self.loaded, LoadsFull):
            raise self.loaded
        load: asyncio.Future[TenantPolicies | None] = asyncio.get_running_loop().create_future()
        if isinstance(self.loaded, Exception):
            load.set_exception(self.loaded)
        else:
            load.set_result(self.loaded)
        return load

    def observe(self, tenant_id: str, stamp: bytes) -> None:
        """Written down."""
        self.seen.append(stamp)


class Room:
    """The use case and all that is around it."""

    def __init__(
        self, *, policies: Policies | None = None, standstill: Standstill | None = None, **settings: Any
    ) -> None:
        self.store, self.policies = Store(), policies or Policies()
        self.features = ALL_FEATURES
        self.replies: list[dict[str, Any]] = []
        self.dispatched: list[bytes] = []
        self.broken_dispatch = False
        self.deferred: list[DecideRequest] = []
        self.registry = CollectorRegistry()
        self.telemetry = Telemetry(self.registry)
        told = DecideSettings(**settings)
        self.decide = Decide(
            self.store,
            self.policies,
            lambda: self.features,
            self,
            self.telemetry,
            told,
            outcomes=Outcomes(
                self.store,
                self.policies,
                self.telemetry,
                told.on_store_error,
                on_degraded=lambda request, *_: self.deferred.append(request),
            ),
            tracing=Tracing.off(),
            extensions=self,
            standstill=standstill,
        )

    def admitted(self, request: DecideRequest, plan: Plan, outcome: Admitted, job: bytes) -> None:
        """`usecases.decide.decide.Dispatch`."""
        self.dispatched.append(job)
        if self.broken_dispatch:
            raise RuntimeError("a bug in the dispatcher")

    async def answer(
        self,
        request: DecideRequest,
        stored: StoredPolicy,
        *,
        make_plan: MakePlan,
        read: OutcomeReader,
        waited_s: float = 0.0,
    ) -> ExtensionResult:
        """`ports.extensions.Extensions`; no policy here has any."""
        raise NotImplementedError

    def reply(self, body: bytes, headers: Mapping[str, str] | None) -> None:
        """The caller's."""
        self.replies.append(orjson.loads(body))

    def ask(self, **fields: Any) -> None:
        """One request."""
        body = {"version": "1", "tenant_id": "acme", "request_id": "r", "task": {"type": "chat"}} | fields
        self.decide.handle(orjson.dumps(body), None, None, self.reply)

    async def answered(self, count: int = 1) -> list[dict[str, Any]]:
        """All have their reply, and nothing is in flight."""
        await asyncio.wait_for(self.decide.drained(), 2)
        assert self.decide.in_flight == 0
        assert len(self.replies) == count
        return self.replies

    async def code(self) -> str:
        """The one reply's error."""
        (reply,) = await self.answered()
        return str(reply["error"]["code"])
