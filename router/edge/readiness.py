"""Readiness of this pod for requests, the reasons against it, and the parts that are off.

While a condition does not hold, the pod is not ready. A part that is off (`degrade`) does not affect readiness: the pod
serves, and /readyz lists the part under `degraded`.
"""

import logging
import time
from collections.abc import Callable, Iterable

from msgspec import Struct

from router.domain.degraded import Degradable
from router.log_throttle import LogThrottle
from router.redaction import redacted
from router.telemetry import Event

log = logging.getLogger("router.app")


class ConditionState(Struct, frozen=True):
    """State of a named condition: whether it holds, and the reason if it does not."""

    ok: bool
    reason: str


class Readiness:
    """Ready when every condition holds. Conditions are named at construction and do not hold until `ok` is called.

    `changed` is called with the new readiness whenever it changes, `switched` with a part and whether it is off.
    """

    def __init__(
        self,
        conditions: Iterable[str],
        changed: Callable[[bool], None] = lambda _: None,
        switched: Callable[[Degradable, bool], None] = lambda _part, _off: None,
    ) -> None:
        self._conditions = {name: ConditionState(False, "not checked yet") for name in conditions}
        self._changed = changed
        self._switched = switched
        self._degraded: dict[Degradable, dict[str, str]] = {}
        self._throttle = LogThrottle(time.monotonic)

    def ok(self, name: str) -> None:
        """Set a condition as met."""
        self._set(name, ConditionState(True, ""))

    def not_ok(self, name: str, *, reason: str) -> None:
        """Set a condition as not met; operators read `reason`."""
        self._set(name, ConditionState(False, redacted(reason)))

    @property
    def ready(self) -> bool:
        """Whether all conditions hold."""
        return all(c.ok for c in self._conditions.values())

    def reasons(self) -> dict[str, str]:
        """The conditions that do not hold, with their reasons; empty when ready."""
        return {name: c.reason for name, c in self._conditions.items() if not c.ok}

    def states(self) -> dict[str, ConditionState]:
        """All conditions with their states."""
        return dict(self._conditions)

    def degrade(self, part: Degradable, reason: str, *, by: str = "") -> None:
        """Report a part as off; operators read `reason`. The log has one line per part and reason a minute.

        `by`: who reports it. A part is off until each of those that reported it has restored it.
        """
        reason = redacted(reason)
        reasons = self._degraded.setdefault(part, {})
        was_off, before = bool(reasons), reasons.get(by)
        reasons[by] = reason
        if before != reason and (suppressed := self._throttle.due(f"{part} {reason}")) is not None:
            log.error("%s is off: %s", part, reason, extra={"event": Event.POD_DEGRADED, "unsaid": suppressed})
        if not was_off:
            self._switched(part, True)

    def restore(self, part: Degradable, *, by: str = "") -> None:
        """Report a part as working. No effect on a part that `by` has not reported as off."""
        reasons = self._degraded.get(part, {})
        if reasons.pop(by, None) is not None and not reasons:
            del self._degraded[part]
            log.info("%s is on again", part, extra={"event": Event.POD_RESTORED})
            self._switched(part, False)

    def degraded(self) -> dict[Degradable, str]:
        """The parts that are off, with the reason that was reported first."""
        return {part: next(iter(reasons.values())) for part, reasons in self._degraded.items()}

    def _set(self, name: str, state: ConditionState) -> None:
        if name not in self._conditions:
            raise KeyError(f"no readiness condition {name!r}: there are {', '.join(self._conditions)}")
        before = self.ready
        self._conditions[name] = state
        if self.ready is not before:
            self._changed(self.ready)
