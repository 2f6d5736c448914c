"""Readiness of this pod for requests, with the reasons against it."""

from collections.abc import Callable, Iterable

from msgspec import Struct


class ConditionState(Struct, frozen=True):
    """State of a named condition: whether it holds, and the reason if it does not."""

    ok: bool
    reason: str


class Readiness:
    """Ready when every condition holds. Conditions are named at construction and do not hold until `ok` is called.

    `changed` is called with the new readiness whenever it changes.
    """

    def __init__(self, conditions: Iterable[str], changed: Callable[[bool], None] = lambda _: None) -> None:
        self._conditions = {name: ConditionState(False, "not checked yet") for name in conditions}
        self._changed = changed

    def ok(self, name: str) -> None:
        """Set a condition as met."""
        self._set(name, ConditionState(True, ""))

    def not_ok(self, name: str, reason: str) -> None:
        """Set a condition as not met; operators read `reason`."""
        self._set(name, ConditionState(False, reason))

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

    def _set(self, name: str, state: ConditionState) -> None:
        if name not in self._conditions:
            raise KeyError(f"no readiness condition {name!r}: there are {', '.join(self._conditions)}")
        before = self.ready
        self._conditions[name] = state
        if self.ready is not before:
            self._changed(self.ready)
