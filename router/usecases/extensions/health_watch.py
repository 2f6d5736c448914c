"""The health of extensions: whether one may be called, and the results of its calls.

A pod adds up its call results (a tally) and reports them to the store within 0.5 s, failures within 0.02 s. The store
replies with the fleet's record, which holds the breaker. While an extension is in use, a call therefore needs no round
trip, and the pod's copy of its breaker is at most 1 s old. Only the first call after a pause, and the probe of an open
breaker, ask the store first.

While the store is slow or unavailable, the last known records apply, and the pod's tallies may be lost.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import assert_never

from router.domain.alert import Condition
from router.domain.extensions.health import ExtensionRecord, Settled, Tally, is_blocked
from router.domain.extensions.pipeline import ExtensionName
from router.domain.json import JsonObject
from router.domain.levers import BreakerState
from router.errors import StoreError
from router.ports.alerts import AlertSink
from router.ports.extensions import ExtensionStore
from router.telemetry import Event, Telemetry

log = logging.getLogger("router.extensions")

REPORT_WITHIN_S = 0.5
REPORT_FAILURE_WITHIN_S = 0.02
FRESH_S = 1.0
LOOKUP_TIMEOUT_S = 0.1
MAX_CACHED = 1000
PROBE_GRACE_MS = 1000
NO_PROBE = bytes(8)


class ExtensionHealthWatch:
    """The watch of one pod. `now_ms` is Redis time; `random(n)` returns n random bytes."""

    def __init__(
        self,
        store: ExtensionStore,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._alerts = alerts
        self._now_ms = now_ms
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._cached: dict[ExtensionName, tuple[ExtensionRecord, float]] = {}
        self._tallies: dict[ExtensionName, Tally] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._report_task: asyncio.Task[None] | None = None

    async def admit(self, name: ExtensionName, timeout_ms: int) -> bytes | None:
        """Ask to call an extension. None: its breaker is open.

        Else call it, and pass the returned admission to `record` with the result.
        """
        record = await self._record(name)
        if record is None or record.state is BreakerState.CLOSED:
            return NO_PROBE
        if is_blocked(record, self._now_ms()):
            return None
        probe = self._random(8)
        settled = await self._settle([Tally(name, probe=probe, probe_ms=timeout_ms + PROBE_GRACE_MS)])
        if not settled:
            return None
        record = settled[0].record
        if record.state is BreakerState.CLOSED:
            return NO_PROBE
        return probe if record.probe == probe else None

    async def _record(self, name: ExtensionName) -> ExtensionRecord | None:
        cached = self._cached.get(name)
        if cached is None or self._loop.time() - cached[1] > FRESH_S:
            self._tallies.setdefault(name, Tally(name))
            await asyncio.wait([self._report()], timeout=LOOKUP_TIMEOUT_S)
            cached = self._cached.get(name)
        return None if cached is None else cached[0]

    def record(self, name: ExtensionName, good: bool, took_ms: int, admission: bytes) -> None:
        """Record the result of a call that `admit` allowed; `took_ms` is its duration."""
        tally = self._tallies.setdefault(name, Tally(name))
        tally.saw(good, took_ms, at_ms=self._now_ms())
        if admission != NO_PROBE:
            tally.probe = admission
        if admission != NO_PROBE:
            self._report()
        else:
            self._report_within(REPORT_WITHIN_S if good else REPORT_FAILURE_WITHIN_S)

    def _report_within(self, seconds: float) -> None:
        at = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._report)

    def _report(self) -> asyncio.Task[None]:
        """Report to the store. One report is in flight at a time; results that arrive meanwhile follow in the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._report_task is None:
            self._report_task = self._loop.create_task(self._report_all())
        return self._report_task

    async def _report_all(self) -> None:
        try:
            while self._tallies:
                tallies, self._tallies = self._tallies, {}
                await self._settle(list(tallies.values()))
        finally:
            self._report_task = None

    async def _settle(self, tallies: list[Tally]) -> list[Settled]:
        """Add tallies to the fleet's records and return these; empty while the store is unavailable."""
        try:
            settled = await self._store.settle(tallies)
        except StoreError as fault:
            log.warning(
                "store unavailable; extension health not reported: %s", fault, extra={"event": Event.STORE_AWAY}
            )
            return []
        if len(self._cached) + len(settled) > MAX_CACHED:
            self._cached.clear()
        for item in settled:
            self._cached[item.record.name] = item.record, self._loop.time()
            if item.turned is not None:
                self._breaker_turned(item.record.name, item.turned)
        return settled

    def _breaker_turned(self, name: ExtensionName, state: BreakerState) -> None:
        self._telemetry.extension_breakers.labels(state.value).inc()
        log.warning(
            "extension breaker changed: %s is %s",
            name.text,
            state.value,
            extra={"event": Event.EXTENSION_BREAKER, "extension": name.text, "state": state.value},
        )
        scope = f"extension/{name.text}"
        metadata: JsonObject = {"extension_id": name.id}
        match state:
            case BreakerState.OPEN:
                self._alerts.raise_(Condition.BREAKER_OPENED, scope, metadata=metadata)
            case BreakerState.CLOSED:
                self._alerts.resolve(Condition.BREAKER_OPENED, scope, metadata=metadata)
            case BreakerState.HALF_OPEN:
                pass  # the alert stays open until the breaker closes
            case _:
                assert_never(state)

    async def drained(self) -> None:
        """Report what is still unreported. One attempt; failures are logged."""
        await self._report()
