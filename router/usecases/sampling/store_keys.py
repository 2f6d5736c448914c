"""Number and bytes of the Redis keys of each kind, estimated from a sample by one pod at a time.

Each step reads a page of some hundred keys. The last `WINDOW` pages are scaled up to the total number of keys. The
sampled share of all keys is a metric beside the estimates: at 1 they are exact.
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
from router.usecases.alerts.thresholds import Level

log = logging.getLogger("router.census")

WINDOW = 40
EVERY_S = 5.0
LEASE_STEPS = 6


class StoreKeySampler:
    """Samples a page every `every_s` seconds while this pod leads; alerts on a kind with more than `max_bytes`."""

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
        """Sample forever; cancel to stop."""
        while True:
            try:
                if self._may_work():
                    await self.step()
            except StoreError as fault:
                log.debug("store not sampled: %s", fault)
            await asyncio.sleep(self._every_s)

    async def step(self) -> bool:
        """Sample one more page if this pod leads; return whether it leads.

        :raises StoreError: Redis did not answer.
        """
        if not await self._store.lead(round(LEASE_STEPS * self._every_s * 1000)):
            self._resign()
            return False
        page = await self._store.page()
        if sum(page.counts.values()) >= page.total:
            # This page holds all keys: older pages could only distort the result.
            self._window.clear()
        self._window.append(page)
        counts: Counter[str] = Counter()
        sizes: dict[str, list[int]] = {}
        for sampled in self._window:
            counts.update(sampled.counts)
            for kind, sampled_sizes in sampled.sizes.items():
                sizes.setdefault(kind, []).extend(sampled_sizes)
        read = counts.total()
        if read:
            keys = {kind: page.total * n / read for kind, n in counts.items()}
            size = {kind: keys[kind] * sum(of_kind) / len(of_kind) for kind, of_kind in sizes.items()}
            self._report(keys, size=size, share=min(1.0, read / page.total) if page.total else 1.0)
        return True

    def _resign(self) -> None:
        """Drop the sample and resolve its alerts: another pod leads and raises those that still hold."""
        if self._window:
            self._window.clear()
            for kind in self._levels:
                self._alerts.resolve(Condition.STORE_KIND_LARGE, kind)
            self._levels.clear()
            self._report({}, size={}, share=0.0)

    def _report(self, keys: dict[str, float], *, size: dict[str, float], share: float) -> None:
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
