"""Runs one row: a fleet of its own under a steady load, the fault, the recovery, and the count of what it cost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from router.domain.tasks.task import TaskRecord
from tests.chaos.bars import Bar, Store, drained, measured
from tests.chaos.load import Asked
from tests.chaos.world import World
from tests.fleet.harness import Fleet, Pod, until
from tests.survive.judge import SHORT_OF_CPU_S, judge, wider_s
from tests.survive.load import BOUND, BOUNDED, OK, TENANTS, WINDOW_MS, SteadyLoad
from tests.survive.row import EVERYTHING, CannotRun, Outcome, Row

CALM_S = 1.5
"""The fleet has recovered when for so long every request was served."""
CALM_BEFORE_S = 15.0
DRAIN_S = 60.0
_LOST = frozenset(
    {
        "requests accepted = answered",
        "requests without an answer",
        "tasks dispatched = ended",
        "usage lost",
        "final results told = tasks ended",
        "assignments without their event",
    }
)
_OF_EACH_REQUEST = frozenset(
    {
        "requests accepted = answered",
        "requests without an answer",
        "requests with two decisions",
        "requests whose decision is not audited once",
        "tasks dispatched = ended",
        "tasks with an attempt that ended never or twice",
        "tasks whose audit tells another end",
        "usage lost",
        "final results told = tasks ended",
        "tasks whose caller was told another end",
    }
)
"""The bars that can be measured for some of the requests."""
_DOUBLED = frozenset(
    {
        "requests with two decisions",
        "tasks with an attempt that ended never or twice",
        "usage doubled",
        "tasks whose caller was told two ends",
        "events of an assignment that came twice",
    }
)


class Arena:
    """What a row's `act` works with: the fleet, the proxies between pods and servers, the load, and checks."""

    def __init__(self, world: World, load: SteadyLoad) -> None:
        self.world = world
        self.load = load
        self.missed: list[str] = []
        self.told: list[str] = []
        self._began = asyncio.get_running_loop().time()

    @property
    def fleet(self) -> Fleet:
        """Servers, pods, store."""
        return self.world.fleet

    @property
    def pods(self) -> list[Pod]:
        """The pods in the order of their start."""
        return self.world.fleet.pods

    @property
    def slack_s(self) -> float:
        """What a bound of time is wider by, because the machine is short of CPU."""
        return wider_s(self.load.late_s(self._began))

    def check(self, what: str, held: object) -> None:
        """A promise of this row beside the bounds."""
        if not held:
            self.missed.append(what)

    async def expect(self, what: str, look: Awaitable[object]) -> None:
        """The same for something that must become true; an AssertionError of `until` is the miss."""
        try:
            await look
        except AssertionError as fault:
            self.missed.append(f"{what}: {fault}"[:400])


@asynccontextmanager
async def arena(row: Row, folder: Path, rate: float) -> AsyncIterator[Arena]:
    """The fleet of a row, under load."""
    setup = row.setup
    world = World(
        folder,
        pods=setup.pods,
        valkey=setup.valkey(folder / "valkey"),
        nats=setup.nats(folder / "nats"),
        tenants=TENANTS,
        env=setup.env,
        servers_env=setup.servers_env,
        workers_direct=setup.workers_direct,
        ack_wait_s=5,
    )
    async with world, SteadyLoad(world.caller, rate) as load:
        yield Arena(world, load)


async def run(row: Row, folder: Path, rate: float) -> Outcome:
    """The whole course of a row. Whatever goes wrong on the way is a missed promise, not a crash of the table."""
    began = time.monotonic()
    outcome = Outcome(row=row, offered=rate)
    try:
        async with arena(row, folder, rate) as ground:
            await _course(row, ground, outcome)
    except CannotRun:
        raise
    except Exception as fault:
        outcome.missed.append(f"{type(fault).__name__}: {fault}"[:600])
    outcome.seconds = time.monotonic() - began
    return outcome


async def _course(row: Row, ground: Arena, outcome: Outcome) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    outcome.was_calm = await _until_calm(ground.load, started, CALM_BEFORE_S) is not None
    in_time = ground.load.late_s(started) < SHORT_OF_CPU_S
    ground.check(f"every request is served for {CALM_S:g} s before the fault", outcome.was_calm or not in_time)
    began = loop.time()
    await row.act(ground)
    ended = loop.time()
    before = set(ground.load.asked)
    calm_at = await _until_calm(ground.load, ended, row.recover_s + 15)
    try:
        await ground.world.until_whole()
    except AssertionError as fault:
        ground.missed.append(f"the fleet did not become whole: {fault}"[:600])
    finished = await ground.load.finish(DRAIN_S)
    ground.check("everybody who asked was answered", finished)
    judge(row, ground.load, outcome, began=began, ended=ended, calm_at=calm_at)
    if row.exempt is not EVERYTHING:
        await _drain(ground, records_stay=not row.exempts("tasks dispatched = ended"))
    await _of_store(row, ground, outcome)
    if row.exempts_any(_OF_EACH_REQUEST):
        await _of_later(ground, {n: one for n, one in ground.load.asked.items() if n not in before}, ended)
    outcome.missed += ground.missed
    outcome.told += ground.told


async def _until_calm(load: SteadyLoad, since: float, within_s: float) -> float | None:
    """The moment since which every request was served for `CALM_S`; None: there was none."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + within_s
    while loop.time() < give_up + wider_s(load.late_s(since)):
        await asyncio.sleep(0.1)
        calm_from = max(since, loop.time() - CALM_S)
        late = any(a.ended >= calm_from and a.outcome != OK for a in load.asks[-2_000:])
        if loop.time() - since >= CALM_S and not late:
            return calm_from
    return None


async def _drain(ground: Arena, *, records_stay: bool) -> None:
    store = Store(ground.world, ground.load.asked if records_stay else {})

    async def done() -> bool:
        return await drained(ground.world, store) and not any([await _unreconciled(pod) for pod in ground.pods])

    await ground.expect("nothing is left to do", until(done, DRAIN_S, "drained"))


async def _unreconciled(pod: Pod) -> bool:
    return (await pod.metrics()).get("router_usage_reconciliation", -1.0) != 0


async def _of_store(row: Row, ground: Arena, outcome: Outcome) -> None:
    """What the store and the streams tell afterwards."""
    bars = [bar for bar in await measured(ground.world, ground.load.asked) if not bar.held]
    promised = [bar for bar in bars if not row.exempts(bar.name)]
    outcome.lost = _sum(b for b in bars if b.name in _LOST)
    outcome.doubled = _sum(b for b in bars if b.name in _DOUBLED)
    above = await _above_the_bound(ground)
    caller = ground.world.caller
    doubles = caller.contradicted() if row.exempts("requests with the same reply twice") else caller.doubles()
    outcome.wrong = _sum(b for b in bars if b.name not in _LOST | _DOUBLED) + len(ground.load.wrong) + above + doubles
    outcome.missed += [f"{b.name}: {b.found}, not {b.wanted} {', '.join(b.examples)}".rstrip() for b in promised]
    outcome.missed += ground.load.wrong[:5]
    outcome.told += [f"not promised, and seen: {b.name}: {b.found}, not {b.wanted}" for b in bars if b not in promised]
    if above and not row.exempts("above the limit"):
        outcome.missed.append(f"{above} decisions above the limit of {BOUND} in {WINDOW_MS} ms")
    if doubles:
        outcome.missed.append(f"{doubles} requests had two replies")


async def _of_later(ground: Arena, asked: dict[str, Asked], since: float) -> None:
    """No fault is an excuse for what was asked after its end: nothing of it is exempt."""
    store = Store(ground.world, asked)

    async def ended() -> bool:
        return all(isinstance(r, TaskRecord) and r.state.final for r in (await store.records()).values())

    most = ground.load.most_admitted(since)
    ground.check(f"after the fault at most {BOUND} in a window ({most})", most <= BOUND)
    await ground.expect("what was asked after the fault has ended", until(ended, DRAIN_S, "ended"))
    for bar in await measured(ground.world, asked):
        if bar.name in _OF_EACH_REQUEST and not bar.held:
            found = f"{bar.found}, not {bar.wanted} {', '.join(bar.examples)}".rstrip()
            ground.missed.append(f"of {len(asked)} asked after the fault: {bar.name}: {found}"[:600])


def _sum(bars: Iterable[Bar]) -> int:
    return sum(abs(bar.found - bar.wanted) for bar in bars)


async def _above_the_bound(ground: Arena) -> int:
    """By how much the tenant `bounded` got more than its limit in some window, by the store's own time."""
    at = [int(e.id.split("-")[0]) for e in await ground.fleet.audit(BOUNDED) if e.action == "decision.made"]
    first = most = 0
    for last, when in enumerate(at):
        while when - at[first] >= WINDOW_MS:
            first += 1
        most = max(most, last - first + 1)
    outcomes = ", ".join(f"{what} {n}" for what, n in sorted(ground.load.bounded.items()))
    ground.told.append(f"`{BOUNDED}`: {outcomes}; at most {most} of {BOUND} in a window")
    return max(0, most - BOUND)
