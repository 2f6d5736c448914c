"""How many keys the store has of each kind, and their bytes: from a sample, by one pod at a time.

A step reads a page of some hundred keys; what the last `WINDOW` pages held is scaled up to all keys there are. The
share of keys that these pages are is told beside it: with 1 the figures are exact, with little they are estimates.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable

from router.domain.alert import Condition
from router.errors import StoreError
from router.ports.alerts import AlertSink
from router.ports.tenants import SamplePage, StoreSample
from router.telemetry import Telemetry
from router.usecases.alerts.rules import Level

log = logging.getLogger("router.census")

WINDOW = 40
EVERY_S = 5.0
LEASE_STEPS = 6


class Census:
    """Steps every `every_s` seconds while it leads. A kind of more than `max_bytes` is an alert."""

    def __init__(
        self,
        store: StoreSample,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        max_bytes: int,
        may_work: Callable[[], bool],
        every_s: float = EVERY_S,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._alerts = alerts
        self._max_bytes = max_bytes
        self._may_work = may_work
        self._every_s = every_s
        self._window: deque[SamplePage] = deque(maxlen=WINDOW)
        self._levels: dict[str, Level] = {}

    async def run(self) -> None:
        """Step for ever; cancel to stop."""
        while True:
            try:
                if self._may_work():
                    await self.step()
            except StoreError as fault:
                log.debug("the store is not sampled now: %s", fault)
            await asyncio.sleep(self._every_s)

    async def step(self) -> bool:
        """Look at one more page, if this pod leads; whether it does.

        :raises StoreError: Redis did not answer.
        """
        if not await self._store.lead(round(LEASE_STEPS * self._every_s * 1000)):
            self._resign()
            return False
        page = await self._store.page()
        if sum(page.counts.values()) >= page.total:
            # All keys at once: older pages could only be wrong.
            self._window.clear()
        self._window.append(page)
        seen: Counter[str] = Counter()
        sizes: dict[str, list[int]] = {}
        for one in self._window:
            seen.update(one.counts)
            for kind, some in one.sizes.items():
                sizes.setdefault(kind, []).extend(some)
        looked = seen.total()
        if looked:
            keys = {kind: page.total * n / looked for kind, n in seen.items()}
            size = {kind: keys[kind] * sum(some) / len(some) for kind, some in sizes.items()}
            self._tell(keys, size, min(1.0, looked / page.total) if page.total else 1.0)
        return True

    def _resign(self) -> None:
        """Another pod leads, and says whether what was alerted still holds."""
        if self._window:
            self._window.clear()
            for kind in self._levels:
                self._alerts.resolve(Condition.STORE_KIND_LARGE, kind)
            self._levels.clear()
            self._tell({}, {}, 0.0)

    def _tell(self, keys: dict[str, float], size: dict[str, float], share: float) -> None:
        t = self._telemetry
        t.store_sampled_share.set(share)
        for kind in t.store_kinds:
            t.store_keys.labels(kind).set(round(keys.get(kind, 0)))
            t.store_key_bytes.labels(kind).set(round(size.get(kind, 0)))
            if kind in size or kind in self._levels:
                self._level(kind).read(size.get(kind, 0))

    def _level(self, kind: str) -> Level:
        if kind not in self._levels:
            self._levels[kind] = Level(
                self._alerts,
                Condition.STORE_KIND_LARGE,
                kind,
                raise_at=self._max_bytes,
                clear_at=0.9 * self._max_bytes,
            )
        return self._levels[kind]
