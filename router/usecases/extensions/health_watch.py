"""How extensions do, as this pod sees it and as the fleet knows it: whether one may be called, and what came of it.

What the pod sees is added up and told to the store within half a second, sooner when it is bad; what the store answers
is the fleet's record. So a call costs no round trip while an extension is in use, and its breaker is known with an age
of a second at most. Only the first call after a pause, and one that tries an open breaker, ask first.

While the store is slow or away, extensions are called as it was last known, and what is seen of them may be lost.
"""

import asyncio
import logging
from collections.abc import Callable

from router.domain.alert import Condition
from router.domain.extension_health import ExtensionRecord, Settled, Tally, is_shut
from router.domain.extensions import Name
from router.domain.json import JsonObject
from router.domain.view import BreakerState
from router.errors import StoreError
from router.ports.alerts import AlertSink
from router.ports.extensions import ExtensionStore
from router.telemetry import Event, Telemetry

log = logging.getLogger("router.extensions")

TOLD_WITHIN_S = 0.5
BAD_TOLD_WITHIN_S = 0.02
FRESH_S = 1.0
ASKED_FOR_S = 0.1
MAX_KNOWN = 1000
PROBE_GRACE_MS = 1000
FREELY = bytes(8)


class ExtensionWatch:
    """One a pod. `now_ms` is Redis time, `random` gives so many random bytes."""

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
        self._known: dict[Name, tuple[ExtensionRecord, float]] = {}
        self._tallies: dict[Name, Tally] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.Task[None] | None = None

    async def admit(self, name: Name, timeout_ms: int) -> bytes | None:
        """None: its breaker is open. Else call it, and give what this returns to `saw`."""
        record = await self._record(name)
        if record is None or record.state is BreakerState.CLOSED:
            return FREELY
        if is_shut(record, self._now_ms()):
            return None
        probe = self._random(8)
        settled = await self._settle([Tally(name, probe=probe, probe_ms=timeout_ms + PROBE_GRACE_MS)])
        if not settled:
            return None
        record = settled[0].record
        if record.state is BreakerState.CLOSED:
            return FREELY
        return probe if record.probe == probe else None

    async def _record(self, name: Name) -> ExtensionRecord | None:
        known = self._known.get(name)
        if known is None or self._loop.time() - known[1] > FRESH_S:
            self._tallies.setdefault(name, Tally(name))
            await asyncio.wait([self._tell()], timeout=ASKED_FOR_S)
            known = self._known.get(name)
        return None if known is None else known[0]

    def saw(self, name: Name, good: bool, took_ms: int, admission: bytes) -> None:
        """What came of a call that `admit` let through."""
        tally = self._tallies.setdefault(name, Tally(name))
        tally.saw(good, took_ms, self._now_ms())
        if admission != FREELY:
            tally.probe = admission
        if admission != FREELY:
            self._tell()
        else:
            self._tell_within(TOLD_WITHIN_S if good else BAD_TOLD_WITHIN_S)

    def _tell_within(self, seconds: float) -> None:
        at = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._tell)

    def _tell(self) -> asyncio.Task[None]:
        """Tell the store; one call is in flight, and what comes meanwhile is told by it next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._telling is None:
            self._telling = self._loop.create_task(self._tell_all())
        return self._telling

    async def _tell_all(self) -> None:
        try:
            while self._tallies:
                tallies, self._tallies = self._tallies, {}
                await self._settle(list(tallies.values()))
        finally:
            self._telling = None

    async def _settle(self, tallies: list[Tally]) -> list[Settled]:
        """The fleet's records after these tallies; nothing when the store is away."""
        try:
            settled = await self._store.settle(tallies)
        except StoreError as fault:
            log.warning("the store was not told of extensions: %s", fault, extra={"event": Event.STORE_AWAY})
            return []
        if len(self._known) + len(settled) > MAX_KNOWN:
            self._known.clear()
        for one in settled:
            self._known[one.record.name] = one.record, self._loop.time()
            if one.turned is not None:
                self._turned(one.record.name, one.turned)
        return settled

    def _turned(self, name: Name, state: BreakerState) -> None:
        self._telemetry.extension_breakers.labels(state.value).inc()
        log.warning(
            "the breaker of extension %s is %s",
            name.text,
            state.value,
            extra={"event": Event.EXTENSION_BREAKER, "extension": name.text, "state": state.value},
        )
        scope = f"extension/{name.text}"
        metadata: JsonObject = {"extension_id": name.id}
        if state is BreakerState.OPEN:
            self._alerts.raise_(Condition.BREAKER_OPENED, scope, metadata=metadata)
        elif state is BreakerState.CLOSED:
            self._alerts.resolve(Condition.BREAKER_OPENED, scope, metadata=metadata)

    async def drained(self) -> None:
        """Tell what is not told yet; once, whatever comes of it."""
        await self._tell()
