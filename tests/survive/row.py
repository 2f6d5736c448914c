"""One row of the survival table: a fault, what is promised meanwhile, and the bounds that the promise sets."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from tests.chaos.world import World
from tests.servers import NatsProcess, ValkeyProcess

if TYPE_CHECKING:
    from tests.survive.arena import Arena

ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")
AGAIN = frozenset({"unavailable", "service_overloaded"})
"""The refusals that mean: again, with the same id."""


Act = Callable[["Arena"], Awaitable[None]]
"""Does a fault and undoes it."""


EVERYTHING = frozenset({"*"})
"""Exempts all that is measured: what is lost is the promise itself."""


class CannotRun(Exception):
    """The row needs something that is not here; the message says what."""


class Setup(Struct, frozen=True):
    """The fleet of a row. `env` is every pod's, and so is what `servers_env` says once the servers run. `valkey` and
    `nats` make servers in a folder of the row's own. `workers_direct`: workers connect to NATS without the proxy.
    """

    pods: int = 3
    env: dict[str, str] = {}
    servers_env: Callable[[World], dict[str, str]] = lambda _: {}
    valkey: Callable[[Path], ValkeyProcess] = lambda folder: ValkeyProcess(folder, args=ALWAYS)
    nats: Callable[[Path], NatsProcess] = NatsProcess
    workers_direct: bool = False


class Row(Struct, frozen=True, kw_only=True):
    """`name` is `group.fault`; `see` is the heading in docs/OPERATIONS.md that tells an operator what to do.

    `act` does the fault and undoes it. The bounds: `worst_s` of an answer, `hung` requests (the caller's connection
    stood, and no answer came), `recover_s` from the end of the fault to the last request that was not served,
    `served` the least share of requests that get a decision at their first asking. A machine that is short of CPU
    widens bounds of time (see `judge`). `refused`: the codes that may come. `exempt`: what is measured but not promised
    of requests that met the fault; the promise says why. What is asked afterwards is never exempt.
    """

    name: str
    fault: str
    promise: str
    see: str
    act: Act
    worst_s: float = 1.5
    hung: int = 0
    recover_s: float = 5.0
    served: float = 0.0
    refused: frozenset[str] = AGAIN
    exempt: frozenset[str] = frozenset()
    setup: Setup = Setup()
    short: bool = False
    """Whether the short table has it."""

    def exempts(self, what: str) -> bool:
        """Whether this is measured and not promised."""
        return self.exempt is EVERYTHING or what in self.exempt

    def exempts_any(self, of: frozenset[str]) -> bool:
        """Whether some of these are."""
        return self.exempt is EVERYTHING or bool(self.exempt & of)


class Outcome(Struct, kw_only=True):
    """What a row has come to. `missed` is empty: the promise held. `not_run`: the reason why there is no outcome."""

    row: Row
    offered: float = 0.0
    """New requests a second."""
    decided: float = 0.0
    """Decisions a second from the begin of the fault to its end."""
    answers: int = 0
    refused: dict[str, int] = {}
    worst_s: float = 0.0
    hung: int = 0
    wrong: int = 0
    lost: int = 0
    doubled: int = 0
    recover_s: float = 0.0
    late_s: float = 0.0
    """By how much the load's own timer was late at worst: so much the machine was short of CPU."""
    was_calm: bool = True
    """Whether every request was served before the fault; if not, for want of CPU, bounds of time say nothing."""
    seconds: float = 0.0
    missed: list[str] = []
    told: list[str] = []
    """What the row measured beside, for its reader."""
    not_run: str = ""

    @property
    def held(self) -> bool:
        """Whether it ran and kept its promise."""
        return not self.not_run and not self.missed
