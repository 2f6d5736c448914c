"""Watches the store: whether Redis answers and accepts calls, and whether its clock steps."""

import logging
import time
from collections.abc import Callable

from router.domain.alert import FLEET, Condition
from router.domain.json import JsonObject
from router.log_throttle import LogThrottle
from router.ports.alerts import AlertSink
from router.store.decide.availability import LaneHooks
from router.telemetry import Event, Telemetry
from router.usecases.alerts.thresholds import Unavailable

log = logging.getLogger("router.app")


class StoreWatch:
    """Watches the lanes. The store is unavailable while a lane is down or refuses every call (full, or now a replica).

    `rule` gets one reading a second once it is set, and `alerts` the steps of Redis' clock. Append callbacks to
    `on_away`, called each time one more node is unavailable, and to `on_back`, called when all answer again.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._decide_seconds = telemetry.store_call_seconds.child("decide")
        self.on_away: list[Callable[[], None]] = []
        self.on_back: list[Callable[[], None]] = []
        self._lanes_down = 0
        self._outage_reason: str | None = None
        self._refusing: dict[object, str] = {}
        self._throttle = LogThrottle(time.monotonic)
        self._unconfirmed_throttle = LogThrottle(time.monotonic)
        self.rule: Unavailable | None = None
        self.alerts: AlertSink | None = None

    def hooks(self) -> LaneHooks:
        """The callbacks for the lanes."""
        t = self._telemetry
        return LaneHooks(
            on_call=self._call_done,
            on_timeout=t.store_timeouts.inc,
            on_down=self._lane_changed,
            on_late=t.store_late_rows.inc,
            on_refused=self._lane_refuses,
            on_still_down=self._lane_stays_down,
            on_clock_step=self._clock_stepped,
            on_unconfirmed=self._unconfirmed,
        )

    def _unconfirmed(self, script: str) -> None:
        """Too few replicas have confirmed a call: count it, and log it once a minute for each script."""
        self._telemetry.store_unconfirmed.labels(script).inc()
        if (unsaid := self._unconfirmed_throttle.due(script)) is not None:
            fields = {"event": Event.STORE_UNCONFIRMED, "script": script, "unsaid": unsaid}
            log.error("fewer replicas than ROUTER_WAIT_REPLICAS confirmed a call in time", extra=fields)

    def _call_done(self, _script: str, seconds: float, rows: int) -> None:
        if rows:
            self._decide_seconds.observe(seconds)
            self._telemetry.batch_rows.observe(rows)

    def _lane_changed(self, down: bool, why: str) -> None:
        self._lanes_down += 1 if down else -1
        self._update_gauge()
        if down:
            self._telemetry.store_errors.inc()
            log.error("store unavailable: %s", why, extra={"event": Event.STORE_AWAY})
            self._outage_reason = why
            for callback in self.on_away:
                callback()
            return
        if self._lanes_down > 0:
            # Another node of the Cluster is still unavailable.
            return
        self._recovered("store available again")

    def _lane_stays_down(self, why: str) -> None:
        """Log a reason that differs from the first one: after a lost connection it is the cause, such as a wrong
        password.
        """
        if why == self._outage_reason:
            return
        self._outage_reason = why
        if (suppressed := self._throttle.due(why)) is not None:
            log.error("store still unavailable: %s", why, extra={"event": Event.STORE_AWAY, "unsaid": suppressed})

    def _lane_refuses(self, lane: object, why: str | None) -> None:
        if why is None:
            del self._refusing[lane]
            self._update_gauge()
            if not self._refusing:
                self._throttle.over()
                self._recovered("store accepts calls again")
            return
        self._refusing[lane] = why
        self._update_gauge()
        self._telemetry.store_errors.inc()
        self._outage_reason = why
        if (suppressed := self._throttle.due(why)) is not None:
            log.error("store refuses calls: %s", why, extra={"event": Event.STORE_REFUSES, "unsaid": suppressed})

    def _clock_stepped(self, ms: float) -> None:
        direction = "forward" if ms > 0 else "back"
        self._telemetry.store_clock_steps.labels(direction).inc()
        step: JsonObject = {"step_ms": round(ms), "direction": direction}
        message = f"Redis' clock went {direction} by {abs(ms) / 1000:,.1f} s"
        log.error(message, extra={"event": Event.STORE_CLOCK_STEPPED, **step})
        if self.alerts is not None:
            self.alerts.occurred(Condition.CLOCK_STEPPED, FLEET, message=message, metadata=step)

    def _recovered(self, message: str) -> None:
        log.info(message, extra={"event": Event.STORE_BACK})
        for callback in self.on_back:
            callback()

    def _update_gauge(self) -> None:
        self._telemetry.store_breaker_open.set(int(self._lanes_down > 0 or bool(self._refusing)))

    def tick(self) -> None:
        """Call once a second."""
        why = self._outage_reason
        if self._lanes_down == 0:
            self._outage_reason = next(iter(self._refusing.values()), None)
        if self.rule is not None:
            self.rule.read(why is not None, None if why is None else {"reason": why})
