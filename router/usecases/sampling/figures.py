"""A pod's snapshots of live figures: for tenants in use, read in the background, never in front of a decide.

    first decide of a tenant → the policy's figures, and a read at once → every 3 s anew → dropped when unused for 5 min

By then half-lives have made the figures worth nothing. While the store is away, the last ones stay.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from router.domain.figures import NO_FIGURES, Snapshot
from router.errors import StoreError
from router.ports.decisions import FiguresStore
from router.telemetry import Telemetry

log = logging.getLogger("router.figures")

_READ_AT_ONCE = 500


class FiguresSettings(Struct, frozen=True):
    """Times in seconds. `max_tenants`: beyond it, who was used longest ago is dropped."""

    every_s: float = 3.0
    idle_s: float = 300.0
    max_tenants: int = 5_000


DEFAULT_SETTINGS: Final = FiguresSettings()


class LiveFigures:
    """Snapshots by tenant, for one event loop. `snapshot` never waits nor raises; `clock` is monotonic, in seconds."""

    def __init__(
        self,
        store: FiguresStore,
        telemetry: Telemetry,
        settings: FiguresSettings = DEFAULT_SETTINGS,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._settings = settings
        self._clock = clock
        # Ordered by last use, as far as the last refresh saw it.
        self._held: dict[str, Snapshot] = {}
        self._used_at: dict[str, float] = {}
        self._used: set[str] = set()
        self._new: set[str] = set()
        self._asked = asyncio.Event()

    def snapshot(self, tenant_id: str) -> Snapshot:
        """The tenant's figures as of a few seconds ago; on first use none."""
        found = self._held.get(tenant_id)
        if found is None:
            self._new.add(tenant_id)
            self._asked.set()
            found = self._held[tenant_id] = NO_FIGURES
        self._used.add(tenant_id)
        return found

    async def run(self) -> None:
        """Read what is new at once and everything in time, until cancelled."""
        due = self._clock() + self._settings.every_s
        while True:
            try:
                async with asyncio.timeout(max(0.0, due - self._clock())):
                    await self._asked.wait()
                await self.read_new()
            except TimeoutError:
                await self.refresh()
                due = self._clock() + self._settings.every_s

    async def read_new(self) -> None:
        """Read the figures of tenants that were used for the first time."""
        wanted = [*self._new]
        self._new.clear()
        self._asked.clear()
        await self._read(wanted)

    async def refresh(self) -> None:
        """Drop who is not in use, and read the figures of all others again."""
        now = self._clock()
        used, self._used = self._used, set()
        for tenant_id in used:
            self._used_at.pop(tenant_id, None)
            self._used_at[tenant_id] = now
            self._held[tenant_id] = self._held.pop(tenant_id)
        for tenant_id in list(self._held):
            idle = now - self._used_at[tenant_id] >= self._settings.idle_s
            if not idle and len(self._held) <= self._settings.max_tenants:
                break
            del self._held[tenant_id], self._used_at[tenant_id]
        self._telemetry.figures_tenants.set(len(self._held))
        await self._read(list(self._held))

    async def _read(self, tenant_ids: Sequence[str]) -> None:
        for at in range(0, len(tenant_ids), _READ_AT_ONCE):
            some = tenant_ids[at : at + _READ_AT_ONCE]
            try:
                found = await self._store.snapshots(some)
            except StoreError as fault:
                self._telemetry.figures_failures.inc()
                log.debug("live figures could not be read: %s", fault)
                return
            for tenant_id, snapshot in zip(some, found, strict=True):
                held = self._held.get(tenant_id)
                # The same object as long as nothing has changed: orders are remembered by it.
                if held is not None and held.version != snapshot.version:
                    self._held[tenant_id] = snapshot
