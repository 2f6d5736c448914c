"""Whether a node can be used, judged by its lane's calls, and the reports about it."""

from collections.abc import Callable

from msgspec import Struct

from router.store.decide.calls import LaneSettings


def _ignore_late_row() -> None:
    """Ignore a late row."""


def _ignore_step(_ms: float) -> None:
    """Ignore a step of Redis' clock."""


def _ignore_refusal(_lane: object, _why: str | None) -> None:
    """Ignore refused calls."""


def _ignore_unconfirmed(_call: str) -> None:
    """Ignore a call that too few replicas have confirmed."""


def _ignore_reason(_why: str) -> None:
    """Ignore why a lane stays down."""


class LaneHooks(Struct):
    """Callbacks for a lane's events: a call (script, seconds, rows), a missed deadline, down or up (why), a late row.

    `on_refused`: the node answers, but refuses whole calls (why), or accepts them again (None). Its first argument
    identifies the lane and is always the same object. `on_clock_step`: Redis' clock was stepped by so many ms, see
    `decide.clock`. `on_still_down`: a further try to connect failed (why). `on_unconfirmed`: too few
    replicas have confirmed a call (its script) in time.
    """

    on_call: Callable[[str, float, int], None]
    on_timeout: Callable[[], None]
    on_down: Callable[[bool, str], None]
    on_late: Callable[[], None] = _ignore_late_row
    on_refused: Callable[[object, str | None], None] = _ignore_refusal
    on_still_down: Callable[[str], None] = _ignore_reason
    on_clock_step: Callable[[float], None] = _ignore_step
    on_unconfirmed: Callable[[str], None] = _ignore_unconfirmed


class Availability:
    """A node's availability.

    - `down`: the connection is lost, or several deadlines were missed in a row. Rows are refused at once.
    - Refusing: the node answers, and refuses whole calls (out of memory, loading, a replica). Rows are still sent.
    """

    __slots__ = ("_hooks", "_missed", "_refusing", "_settings", "down")

    def __init__(self, settings: LaneSettings, hooks: LaneHooks) -> None:
        self._settings = settings
        self._hooks = hooks
        self._missed = 0
        self._refusing = False
        self.down = False

    def set_down(self, why: str) -> None:
        """Mark the node as down. Reports the change, or why the node stays down."""
        if not self.down:
            self.down = True
            self._hooks.on_down(True, why)
        else:
            self._hooks.on_still_down(why)

    def set_up(self, why: str) -> None:
        """Mark the node as up, with no missed deadline; a change is reported."""
        self._missed = 0
        if self.down:
            self.down = False
            self._hooks.on_down(False, why)

    def deadline_missed(self) -> bool:
        """Count a missed deadline. True: there were so many in a row that the node is down."""
        self._hooks.on_timeout()
        self._missed += 1
        if self._missed < self._settings.missed_until_down:
            return False
        self.set_down(f"{self._missed} deadlines of {self._settings.deadline_ms:g} ms were missed in a row")
        return True

    def answered(self, elapsed_s: float) -> bool:
        """Whether an answer came in time. If so, the count of missed deadlines starts again."""
        in_time = elapsed_s * 1000 <= self._settings.deadline_ms
        if in_time:
            self._missed = 0
        return in_time

    def call_refused(self, why: str) -> None:
        """The node refused a whole call; every refusal is reported."""
        self._refusing = True
        self._hooks.on_refused(self, why)

    def call_accepted(self) -> None:
        """The node executed a call; the end of refusals is reported."""
        if self._refusing:
            self._refusing = False
            self._hooks.on_refused(self, None)

    def retire(self) -> None:
        """Count the node neither as down nor as refusing: it has no partition any more."""
        self.set_up("its node has left")
        self.call_accepted()
