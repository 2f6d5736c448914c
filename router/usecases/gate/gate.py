"""The CP gate of a running pod: looks at the mounted file, decides what is allowed, says when that changes.

What one look does to the gate:

    good file                    its checkpoint counts at once
    no file                      the last good checkpoint counts for the grace time, then CP1 baseline
    malformed, after a good one  looked at once more first: it may be half-written; then CP1 baseline
    unreadable                   CP1 baseline at once

The file is only read. A ConfigMap's symlink swap is seen because the path is opened anew at every look.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from router.domain.alert import FLEET, Condition
from router.domain.gate import BASELINE, Checkpoint, Fault, Unusable, fault_of, features_of, parse
from router.domain.json import JsonObject
from router.domain.plan import Features
from router.ports.alerts import AlertSink
from router.ports.gate import StateFile
from router.telemetry import Event, Telemetry

FREQUENT = 3
FREQUENT_WINDOW_MS = 600_000

log = logging.getLogger("router.gate")


class GateState(Struct, frozen=True):
    """What the gate says now, for status and audit. `fault` None: open.

    It has been so since `since_ms` (the pod's Unix time; 0: not looked at yet). `doubt`: why this is not what the last
    look saw.
    """

    checkpoint: str | None
    updated_at_ms: int | None
    fault: Fault | None
    detail: str
    since_ms: int = 0
    doubt: str | None = None

    @property
    def facts(self) -> JsonObject:
        """For people and machines; `reason` and `doubt` are null where there is none."""
        return {
            "open": self.fault is None,
            "current_cp": self.checkpoint,
            "updated_at_ms": self.updated_at_ms,
            "since_ms": self.since_ms,
            "reason": None if self.fault is None else self.fault.value,
            "detail": self.detail,
            "doubt": self.doubt,
        }


class Gate:
    """`features` is what requests may use; read it anew for each. Closed until the first look.

    `monotonic_ms` times the grace, `wall_ms` (Unix time) the age of the file. `changed` is called after every change.
    """

    def __init__(
        self,
        file: StateFile,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        monotonic_ms: Callable[[], int],
        wall_ms: Callable[[], int],
        grace_s: int = 60,
        max_age_s: int | None = None,
        changed: Callable[[GateState], None] = lambda _: None,
    ) -> None:
        self.features: Features = BASELINE
        self.state = GateState(None, None, Fault.MISSING, "not looked at yet")
        self._file, self._telemetry, self._alerts, self._changed = file, telemetry, alerts, changed
        self._monotonic_ms, self._wall_ms = monotonic_ms, wall_ms
        self._grace_ms, self._max_age_s = grace_s * 1000, max_age_s
        self._good: Checkpoint | None = None
        self._vanished_at_ms: int | None = None
        self._doubted = False
        self._doubt: str | None = None
        self._fallbacks: deque[int] = deque(maxlen=FREQUENT)
        self._polled = False
        telemetry.decisions.per_tenant(False)

    @property
    def is_open(self) -> bool:
        """Whether everything is allowed."""
        return self.state.fault is None

    async def watch(self, every_s: float) -> None:
        """Look for ever; cancel to stop."""
        while True:
            await self.poll()
            await asyncio.sleep(every_s)

    async def poll(self) -> None:
        """Look once; never raises. `features` is right when it returns."""
        seen = await asyncio.to_thread(self._read)
        now = self._monotonic_ms()
        state = self._counts(seen, now)
        self._apply(state, now)
        self._check_age(state)

    def _read(self) -> Checkpoint | Unusable:
        try:
            content = self._file.read()
        except OSError as e:
            return Unusable(Fault.UNREADABLE, e.strerror or str(e))
        return Unusable(Fault.MISSING, "there is no file") if content is None else parse(content)

    def _counts(self, seen: Checkpoint | Unusable, now: int) -> Checkpoint | Unusable:
        """What counts after this look: what was seen, or still the last good one."""
        self._doubt = None
        if isinstance(seen, Checkpoint):
            self._good, self._vanished_at_ms, self._doubted = seen, None, False
            return seen
        if self._good is None:
            return seen
        if seen.fault is Fault.MISSING:
            if self._vanished_at_ms is None:
                self._vanished_at_ms = now
                log.warning("the state file vanished", extra={"event": Event.GATE_STATE_UNUSABLE, "reason": seen.fault})
            left_ms = self._grace_ms - (now - self._vanished_at_ms)
            if left_ms > 0:
                self._doubt = f"the file vanished; its last value counts for {-(-left_ms // 1000)} s more"
                return self._good
        elif seen.fault is Fault.MALFORMED and not self._doubted:
            self._doubted = True
            self._doubt = f"the file cannot be read just now: {seen.detail}"
            return self._good
        self._good, self._vanished_at_ms, self._doubted = None, None, False
        return seen

    def _apply(self, state: Checkpoint | Unusable, now: int) -> None:
        fault = fault_of(state)
        first, self._polled = not self._polled, True
        before = self.state
        turned = first or fault is not before.fault
        since = self._wall_ms() if turned else before.since_ms
        self.state = (
            GateState(None, None, fault, state.detail, since)
            if isinstance(state, Unusable)
            else GateState(
                state.name, state.updated_at_ms, fault, f"current_cp is {state.name}", since, doubt=self._doubt
            )
        )
        if not turned:
            return
        self.features = features_of(state)
        self._telemetry.gate_open.set(fault is None)
        self._telemetry.decisions.per_tenant(fault is None)
        fields = {"checkpoint": self.state.checkpoint, "reason": fault}
        if fault is None:
            log.info("the gate is open: %s", self.state.detail, extra={"event": Event.GATE_OPENED, **fields})
            self._alerts.resolve(Condition.CP_STATE_UNUSABLE, FLEET)
        else:
            log.warning("running as CP1 baseline: %s", self.state.detail, extra={"event": Event.GATE_CLOSED, **fields})
            self._fell_back(fault, now)
        self._changed(self.state)

    def _fell_back(self, fault: Fault, now: int) -> None:
        self._telemetry.cp_fallbacks.labels(fault.value).inc()
        metadata: JsonObject = {"reason": fault.value, "detail": self.state.detail}
        self._alerts.raise_(Condition.CP_STATE_UNUSABLE, FLEET, metadata=metadata)
        self._fallbacks.append(now)
        if len(self._fallbacks) == FREQUENT and now - self._fallbacks[0] <= FREQUENT_WINDOW_MS:
            self._alerts.happened(Condition.CP_FALLBACK_FREQUENT, FLEET, metadata=metadata)

    def _check_age(self, state: Checkpoint | Unusable) -> None:
        if self._max_age_s is None or isinstance(state, Unusable):
            return
        updated = state.updated_at_ms
        if updated is None or self._wall_ms() - updated > self._max_age_s * 1000:
            metadata: JsonObject = {"updated_at_ms": updated, "max_age_s": self._max_age_s}
            self._alerts.raise_(Condition.CP_STATE_OLD, FLEET, metadata=metadata)
        else:
            self._alerts.resolve(Condition.CP_STATE_OLD, FLEET)
