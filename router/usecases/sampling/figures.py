"""A pod's snapshots of live figures for the tenants in use, read in the background and never on the decide path.

    first decide of a tenant → policy's figures used, first read at once → read again every 3 s → unused for 5 min:
    dropped

The tenant's next decides wait for this first read, in `usecases.decide`. So only the first decide uses the policy's
figures.

After 5 minutes the figures' half-lives have made them worthless. While the store is unavailable, the last snapshot
stays.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from router.chunks import chunks
from router.domain.decide.figures import NO_FIGURES, Snapshot
from router.errors import StoreError
from router.ports.decisions import FiguresStore
from router.telemetry import Telemetry

log = logging.getLogger("router.figures")

_READ_AT_ONCE = 500


class FiguresSettings(Struct, frozen=True):
    """Times in seconds. Beyond `max_tenants` the tenants that were used longest ago are dropped."""

    every_s: float = 3.0
    idle_s: float = 300.0
    max_tenants: int = 5_000


DEFAULT_SETTINGS: Final = FiguresSettings()


class LiveFigures:
    """Snapshots by tenant, for one event loop. `snapshot` never waits nor raises; `clock` is monotonic, in seconds.

    `first_reads`: the tenants whose figures are being read for the first time; each future ends when they have been
    read, or could not be.
    """

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
        # Ordered by last use, as of the last refresh.
        self._held: dict[str, Snapshot] = {}
        self._used_at: dict[str, float] = {}
        self._used: set[str] = set()
        self._new: set[str] = set()
        self.first_reads: dict[str, asyncio.Future[None]] = {}
        self._has_new = asyncio.Event()

    def snapshot(self, tenant_id: str) -> Snapshot:
        """The tenant's figures, a few seconds old; `NO_FIGURES` at its first use."""
        snapshot = self._held.get(tenant_id)
        if snapshot is None:
            self._new.add(tenant_id)
            self._has_new.set()
            snapshot = self._held[tenant_id] = NO_FIGURES
            self.first_reads[tenant_id] = asyncio.get_running_loop().create_future()
        self._used.add(tenant_id)
        return snapshot

    async def run(self) -> None:
        """Read new tenants at once and all tenants every `every_s` seconds; cancel to stop."""
        due = self._clock() + self._settings.every_s
        while True:
            try:
                async with asyncio.timeout(max(0.0, due - self._clock())):
                    await self._has_new.wait()
                await self.read_new()
            except TimeoutError:
                await self.refresh()
                due = self._clock() + self._settings.every_s

    async def read_new(self) -> None:
        """Read the figures of tenants that were used for the first time."""
        tenant_ids = [*self._new]
        self._new.clear()
        self._has_new.clear()
        try:
            await self._read(tenant_ids)
        finally:
            for tenant_id in tenant_ids:
                first_read = self.first_reads.pop(tenant_id, None)
                if first_read is not None and not first_read.done():
                    first_read.set_result(None)

    async def refresh(self) -> None:
        """Drop tenants that are not in use, and read the figures of all others again."""
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
        for batch in chunks(tenant_ids, _READ_AT_ONCE):
            try:
                snapshots = await self._store.snapshots(batch)
            except StoreError as fault:
                self._telemetry.figures_failures.inc()
                log.debug("live figures could not be read: %s", fault)
                return
            for tenant_id, snapshot in zip(batch, snapshots, strict=True):
                held = self._held.get(tenant_id)
                # An unchanged snapshot stays the same object: the plan cache compares snapshots by identity.
                if held is not None and held.version != snapshot.version:
                    self._held[tenant_id] = snapshot
