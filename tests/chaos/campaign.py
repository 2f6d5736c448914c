"""One run: load, faults in rounds with a breath after each, a drain, and the measure of what must hold.

After a round the fleet must become whole and take a fresh task of every tenant to its end within `RECOVERY_S`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from router.domain.tasks.task import TaskRecord
from router.errors import StoreError
from tests.chaos.bars import Bar, Store, drained, measured
from tests.chaos.load import TENANTS, Load
from tests.chaos.schedule import Fault, schedule
from tests.chaos.world import World
from tests.fleet.harness import until

ROUND = 50
PROGRESS = 25
RECOVERY_S = 30.0
DRAIN_S = 160.0
"""A lost acknowledgement of a long task: its deadline of 90 s, then two more attempts after it."""
_MAX_AT_ONCE = 6

Say = Callable[[str], None]


class Run(Struct):
    """What one run came to; `facts` are told without a bar."""

    seed: int
    fsync: str
    faults: int
    kinds: dict[str, int]
    bars: list[Bar] = []
    facts: dict[str, str] = {}

    @property
    def held(self) -> bool:
        """Whether every bar is met."""
        return bool(self.bars) and all(bar.held for bar in self.bars)


class Campaign:
    """See the module. `rate`: new tasks a second."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        faults: int,
        pods: int = 3,
        rate: float = 20.0,
        fsync: str = "always",
        ack_wait_s: int | None = None,
        say: Say = print,
    ) -> None:
        self._schedule = schedule(seed, faults)
        self._world = World(folder, pods=pods, fsync=fsync, ack_wait_s=ack_wait_s)
        self._seed = seed
        self._rate = rate
        self._say = say
        self._done = 0
        self._recoveries: list[float] = []
        self._stuck: list[str] = []
        self._applying: set[asyncio.Task[None]] = set()
        kinds = Counter(f.kind for f in self._schedule)
        self.run_ = Run(seed, fsync, faults, {str(k): n for k, n in sorted(kinds.items())})

    async def run(self) -> Run:
        """The whole course."""
        run, world = self.run_, self._world
        async with world, Load(world.caller, self._seed, self._rate) as load:
            try:
                await self._course(run, load)
            finally:
                await self._end_faults()
        return run

    async def _course(self, run: Run, load: Load) -> None:
        self._began = time.monotonic()
        for at in range(0, len(self._schedule), ROUND):
            await self._round(self._schedule[at : at + ROUND], load)
        run.facts["faults within"] = f"{time.monotonic() - self._began:.0f} s"
        drained = await self._drain(load)
        run.facts["drained within"] = drained
        run.facts["slowest recovery after a round"] = f"{max(self._recoveries, default=0):.1f} s"
        run.bars = [*await measured(self._world, load.asked), *self._own_bars(load)]
        run.facts |= await self._facts(load)

    async def _end_faults(self) -> None:
        """Of an interrupted campaign: one that begins a process again must not outlive the world."""
        for fault in self._applying:
            fault.cancel()
        await asyncio.gather(*self._applying, return_exceptions=True)

    async def _round(self, faults: list[Fault], load: Load) -> None:
        for fault in faults:
            if len(self._applying) >= _MAX_AT_ONCE:
                await asyncio.wait(set(self._applying), return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self._apply(fault, load))
            self._applying.add(task)
            task.add_done_callback(self._applying.discard)
            await asyncio.sleep(fault.pause_ms / 1000)
        if self._applying:
            await asyncio.gather(*self._applying)
        try:
            await self._breathe(load)
        except AssertionError as e:
            self._stuck.append(f"after fault {faults[-1].number}: {e}; refusals so far: {load.refusals}")
            self._say(self._stuck[-1])

    async def _apply(self, fault: Fault, load: Load) -> None:
        with (self._world.fleet.folder / "faults.log").open("a") as log:
            log.write(f"{time.time():.3f} {fault}\n")
        await self._world.apply(fault)
        self._done += 1
        if self._done % PROGRESS == 0:
            self._progress(load)

    def _progress(self, load: Load) -> None:
        took = time.monotonic() - self._began
        self._say(
            f"[{self._done:4}/{len(self._schedule)}] {took:4.0f} s  asked {len(load.asked)}, answered {load.answered}, "
            f"waiting {load.open}, asked again {load.unanswered + sum(load.refusals.values())}"
        )

    async def _breathe(self, load: Load) -> None:
        """The fleet is whole and works again, or the campaign ends here."""
        began = time.monotonic()
        await self._world.until_whole()
        fresh = [load.ask_of(tenant) for tenant in TENANTS]
        await until(lambda: all(one.answered for one in fresh), RECOVERY_S, "fresh tasks are decided after a round")
        store = Store(self._world, {str(one.body["request_id"]): one for one in fresh})

        async def ended() -> bool:
            records = (await store.records()).values()
            return all(isinstance(r, TaskRecord) and r.state.final for r in records)

        await until(ended, RECOVERY_S, "fresh tasks have ended after a round")
        self._recoveries.append(time.monotonic() - began)

    async def _drain(self, load: Load) -> str:
        """How long until nothing is left to do; what is left after `DRAIN_S` shows in the bars."""
        began = time.monotonic()
        await load.finish(RECOVERY_S)
        store = Store(self._world, load.asked)
        try:
            while not await drained(self._world, store):
                if time.monotonic() - began > DRAIN_S:
                    return f"not within {DRAIN_S:g} s"
                await asyncio.sleep(0.5)
        except StoreError as fault:
            return f"not at all: {fault}"
        return f"{time.monotonic() - began:.0f} s"

    def _own_bars(self, load: Load) -> list[Bar]:
        return [
            Bar("rounds after which the fleet did not recover", 0, len(self._stuck), tuple(self._stuck)),
            Bar("replies that could not be read", 0, len(load.faults), tuple(load.faults[:5])),
        ]

    async def _facts(self, load: Load) -> dict[str, str]:
        fleet = self._world.fleet
        records = {
            n: r for n, r in (await Store(self._world, load.asked).records()).items() if isinstance(r, TaskRecord)
        }
        ends = Counter(r.state.label for r in records.values())
        attempts = Counter(r.attempt for r in records.values())
        missed = [e for e in await fleet.audit("patient") if e.action == "assignment.timed_out"]
        late = [str(e.details["request_id"]) for e in missed]
        totals: dict[str, Any] = {
            "tasks by their end": _listed(ends),
            "tasks by their attempts": _listed(attempts),
            "attempts that ran into a deadline of 90 s": ", ".join([str(len(late)), *late[:5]]),
            "asked again for want of an answer": load.unanswered,
            "refused meanwhile": _listed(load.refusals),
            "replies that came twice": self._world.caller.doubles(),
            "watchdog began a pull anew (pods that live)": int(await fleet.total("router_consumer_stalls_total")),
        }
        return {name: str(value) for name, value in totals.items()}


def _listed(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{what} {n}" for what, n in sorted(counts.items())) or "none"
