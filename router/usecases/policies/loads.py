"""Loads in flight of the policy cache: at most one per tenant, and a bound on loads that requests cause.

An unknown tenant costs a load, and any caller can invent names. So at most `LOADS_AT_ONCE` loads for requests run at a
time, further names wait in the order of their first request, and beyond `LOADS_WAITING` names `LoadsFull` is raised.
Reloads of cached tenants do not wait behind them: the cache bounds those itself.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from router.domain.policy.model import TenantPolicies
from router.errors import LoadsFull, StoreError
from router.ports.policies import Cause

log = logging.getLogger("router.policies")

LOADS_AT_ONCE: Final = 64
LOADS_WAITING: Final = 2048

Loaded = TenantPolicies | None
LoadFuture = asyncio.Future[Loaded]


class Loads:
    """The running loads by tenant, and the names that wait. For one event loop.

    `load(tenant, cause)` reads one tenant. `on_done(tenant)` is called after each load, before its callers continue.
    """

    def __init__(self, load: Callable[[str, Cause], Awaitable[Loaded]], on_done: Callable[[str], None]) -> None:
        self._load = load
        self._on_done = on_done
        self._running: dict[str, LoadFuture] = {}
        self._waiting: OrderedDict[str, LoadFuture] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = 0

    def __contains__(self, tenant_id: object) -> bool:
        """Whether a load of the tenant runs."""
        return tenant_id in self._running

    @property
    def running(self) -> list[str]:
        """The tenants whose loads run."""
        return list(self._running)

    @property
    def refreshes(self) -> int:
        """Number of running loads that no request waits for."""
        return len(self._running) - self._asked

    @property
    def waiting(self) -> int:
        """Number of tenants that wait for their load to start."""
        return len(self._waiting)

    def ask(self, tenant_id: str) -> LoadFuture:
        """Return the tenant's load: the running or waiting one, else a new one. Do not cancel it: it is shared.

        :raises LoadsFull: as many tenants wait as may.
        """
        load = self._running.get(tenant_id) or self._waiting.get(tenant_id)
        if load is not None:
            return load
        if self._asked < LOADS_AT_ONCE:
            return self.start(tenant_id, Cause.ASKED)
        if len(self._waiting) >= LOADS_WAITING:
            raise LoadsFull(f"{LOADS_WAITING:,} tenants wait for their policies")
        load = self._waiting[tenant_id] = asyncio.get_running_loop().create_future()
        return load

    def start(self, tenant_id: str, cause: Cause) -> LoadFuture:
        """Start a load of a tenant that has none running; callers that wait for the tenant get this one."""
        loop = asyncio.get_running_loop()
        future = self._waiting.pop(tenant_id) if tenant_id in self._waiting else loop.create_future()
        self._running[tenant_id] = future
        self._asked += cause is Cause.ASKED
        task = loop.create_task(self._run(tenant_id, cause, future), name=f"policies:{tenant_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return future

    async def settled(self) -> None:
        """Return when no load runs or waits."""
        while self._running:
            await asyncio.wait(self._running.values())

    async def _run(self, tenant_id: str, cause: Cause, future: LoadFuture) -> None:
        try:
            loaded = await self._load(tenant_id, cause)
        except Exception as fault:  # every caller gets the exception
            if not isinstance(fault, StoreError):
                log.error("policies could not be loaded: tenant %s", tenant_id, exc_info=fault)
            if not future.done():
                future.set_exception(fault)
                future.exception()  # a background load has no caller that retrieves it
        except asyncio.CancelledError:
            future.cancel()
            raise
        else:
            if not future.done():
                future.set_result(loaded)
        finally:
            self._done(tenant_id, cause)

    def _done(self, tenant_id: str, cause: Cause) -> None:
        del self._running[tenant_id]
        self._asked -= cause is Cause.ASKED
        while self._waiting and self._asked < LOADS_AT_ONCE:
            self.start(next(iter(self._waiting)), Cause.ASKED)
        self._on_done(tenant_id)
