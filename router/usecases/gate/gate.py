"""The CP gate of a running pod: reads the mounted state file, decides which features are allowed, reports changes.

Effect of one poll:

    readable file                   its checkpoint is in force at once, an older one too
    missing, unreadable or          the last checkpoint stays for the grace time, then CP1 baseline; the alert is
    malformed file                  raised at once
    none was readable since start,  CP1 baseline at once
    or since the grace time ended

The grace time runs from the first poll without a readable file, however its fault changes. The file is never written.
Every poll opens the path again, so it notices the symlink swap of a ConfigMap.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from router.domain.alert import FLEET, Condition
from router.domain.gate import BASELINE, Checkpoint, Fault, Features, Unusable, fault_of, features_of, parse
from router.domain.json import JsonObject
from router.ports.alerts import AlertSink
from router.ports.gate import StateFile
from router.telemetry import Event, Telemetry

FREQUENT = 3
FREQUENT_WINDOW_MS = 600_000

log = logging.getLogger("router.gate")


class GateState(Struct, frozen=True):
    """State of the gate, for status and audit. `fault` None: open.

    `since_ms`: time of the last change (the pod's Unix time; 0: no poll yet). `doubt`: why the last checkpoint is in
    force although the last poll could not read it, and for how long.
    """

    checkpoint: str | None
    updated_at_ms: int | None
    fault: Fault | None
    detail: str
    since_ms: int = 0
    doubt: str | None = None

    @property
    def facts(self) -> JsonObject:
        """The state as a JSON object; `reason` and `doubt` are null if there is none."""
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
    """Holds the features that requests may use; callers read `features` for each request. Closed until the first poll.

    `monotonic_ms` measures the grace time, `wall_ms` (Unix time) the age of the file. `changed` is called after each
    change.
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
        self.state = GateState(None, None, Fault.MISSING, "no poll yet")
        self._file, self._telemetry, self._alerts, self._changed = file, telemetry, alerts, changed
        self._monotonic_ms, self._wall_ms = monotonic_ms, wall_ms
        self._grace_ms, self._max_age_s = grace_s * 1000, max_age_s
        self._good: Checkpoint | None = None
        self._grace_began_ms: int | None = None
        self._doubted: Fault | None = None
        self._doubt: str | None = None
        self._fallbacks: deque[int] = deque(maxlen=FREQUENT)
        self._polled = False
        telemetry.decisions.per_tenant(False)

    @property
    def is_open(self) -> bool:
        """Whether all features are allowed."""
        return self.state.fault is None

    async def watch(self, every_s: float) -> None:
        """Poll forever; cancel to stop."""
        while True:
            await self.poll()
            await asyncio.sleep(every_s)

    async def poll(self) -> None:
        """Read the file once and update `features` and `state`. Never raises."""
        read = await asyncio.to_thread(self._read)
        now_ms = self._monotonic_ms()
        effective = self._effective(read, now_ms)
        self._apply(effective, now_ms)
        self._report_doubt(read, effective=effective)
        self._check_age(effective)

    def _read(self) -> Checkpoint | Unusable:
        try:
            content = self._file.read()
        except OSError as e:
            return Unusable(Fault.UNREADABLE, e.strerror or str(e))
        return Unusable(Fault.MISSING, "there is no file") if content is None else parse(content)

    def _effective(self, read: Checkpoint | Unusable, now_ms: int) -> Checkpoint | Unusable:
        """The checkpoint in force after this poll: the one just read, or still the last one."""
        self._doubt = None
        if isinstance(read, Checkpoint):
            self._good, self._grace_began_ms = read, None
            return read
        if self._good is None:
            return read
        if self._grace_began_ms is None:
            self._grace_began_ms = now_ms
        left_ms = self._grace_ms - (now_ms - self._grace_began_ms)
        if left_ms <= 0:
            self._good, self._grace_began_ms = None, None
            return read
        left_s = -(-left_ms // 1000)
        self._doubt = f"the file is {read.fault}, its last value stays in force for {left_s} s more: {read.detail}"
        return self._good

    def _report_doubt(self, read: Checkpoint | Unusable, *, effective: Checkpoint | Unusable) -> None:
        """Raise the alert at the first poll that cannot read the file; resolve it when the file is readable again."""
        if self._doubt is None:
            if self._doubted is not None and isinstance(read, Checkpoint):
                log.info("state file readable again", extra={"event": Event.LOG, "checkpoint": read.name})
                if fault_of(effective) is None:
                    self._alerts.resolve(Condition.CP_STATE_UNUSABLE, FLEET)
            self._doubted = None
        elif isinstance(read, Unusable) and read.fault is not self._doubted:
            self._doubted = read.fault
            log.warning(
                "state file not usable: %s",
                self._doubt,
                extra={"event": Event.GATE_STATE_UNUSABLE, "reason": read.fault},
            )
            metadata: JsonObject = {"reason": read.fault.value, "detail": self._doubt}
            self._alerts.raise_(Condition.CP_STATE_UNUSABLE, FLEET, metadata=metadata)

    def _apply(self, effective: Checkpoint | Unusable, now_ms: int) -> None:
        fault = fault_of(effective)
        first, self._polled = not self._polled, True
        before = self.state
        changed = first or fault is not before.fault
        since_ms = self._wall_ms() if changed else before.since_ms
        self.state = (
            GateState(checkpoint=None, updated_at_ms=None, fault=fault, detail=effective.detail, since_ms=since_ms)
            if isinstance(effective, Unusable)
            else GateState(
                checkpoint=effective.name,
                updated_at_ms=effective.updated_at_ms,
                fault=fault,
                detail=f"current_cp is {effective.name}",
                since_ms=since_ms,
                doubt=self._doubt,
            )
        )
        if not changed:
            return
        self.features = features_of(effective)
        self._telemetry.gate_open.set(fault is None)
        self._telemetry.decisions.per_tenant(fault is None)
        fields = {"checkpoint": self.state.checkpoint, "reason": fault}
        if fault is None:
            log.info("gate open: %s", self.state.detail, extra={"event": Event.GATE_OPENED, **fields})
            self._alerts.resolve(Condition.CP_STATE_UNUSABLE, FLEET)
        else:
            log.warning(
                "gate closed, pod runs as CP1 baseline: %s",
                self.state.detail,
                extra={"event": Event.GATE_CLOSED, **fields},
            )
            self._report_fallback(fault, now_ms)
        self._changed(self.state)

    def _report_fallback(self, fault: Fault, now_ms: int) -> None:
        self._telemetry.cp_fallbacks.labels(fault.value).inc()
        metadata: JsonObject = {"reason": fault.value, "detail": self.state.detail}
        self._alerts.raise_(Condition.CP_STATE_UNUSABLE, FLEET, metadata=metadata)
        self._fallbacks.append(now_ms)
        if len(self._fallbacks) == FREQUENT and now_ms - self._fallbacks[0] <= FREQUENT_WINDOW_MS:
            self._alerts.occurred(Condition.CP_FALLBACK_FREQUENT, FLEET, metadata=metadata)

    def _check_age(self, effective: Checkpoint | Unusable) -> None:
        if self._max_age_s is None or isinstance(effective, Unusable):
            return
        updated_at_ms = effective.updated_at_ms
        if updated_at_ms is None or self._wall_ms() - updated_at_ms > self._max_age_s * 1000:
            metadata: JsonObject = {"updated_at_ms": updated_at_ms, "max_age_s": self._max_age_s}
            self._alerts.raise_(Condition.CP_STATE_OLD, FLEET, metadata=metadata)
        else:
            self._alerts.resolve(Condition.CP_STATE_OLD, FLEET)
