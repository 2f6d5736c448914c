"""`python -m tests.soak --minutes 30`: three pods under a steady load, while tenants, policies and pods change.

Memory, open files and tasks of the pods that stay, keys of Redis by kind and p99 must be flat; exit code 1: one is not.
Keys that each request adds are counted a decision.
"""

import argparse
import asyncio
import itertools
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import orjson

from router.domain.audit.records import Actor
from router.store.levers import RedisLevers, lever_scripts
from router.store.tenants.walk import RedisTenants
from router.usecases.admin.purge import Purger
from tests.chaos.world import World
from tests.fleet.foreign import task
from tests.fleet.harness import PLAIN
from tests.servers import ValkeyProcess
from tests.soak.samples import Sample, Sampler, series_of
from tests.soak.slopes import Series, table
from tests.survive.load import TENANTS, SteadyLoad
from tests.survive.row import EVERYSEC

ALIVE = 50
"""Tenants that come and go: so many are there at a time."""
REPLACE_EVERY_S = 60.0
_STICKY = PLAIN | {"sticky": {"session_key": "session_id", "ttl": "5s"}}


class Soak:
    """One run. `warm_up_s` fills the caches first; a sample is taken every `every_s`."""

    def __init__(self, folder: Path, *, seconds: float, warm_up_s: float, every_s: float, rate: float) -> None:
        self._folder, self._seconds, self._warm_up_s, self._every_s = folder, seconds, warm_up_s, every_s
        self._rate = rate

    async def run(self) -> list[Series]:
        """Every series, from the end of the warm-up on."""
        valkey = ValkeyProcess(self._folder / "valkey", args=EVERYSEC)
        world = World(self._folder, pods=3, valkey=valkey, tenants=TENANTS, ack_wait_s=5)
        async with world, SteadyLoad(world.caller, self._rate) as load:
            churn = [asyncio.create_task(self._tenants(world)), asyncio.create_task(self._replacements(world))]
            try:
                await asyncio.sleep(self._warm_up_s)
                samples = await self._samples(Sampler(world.fleet, load, world.fleet.pods[:2]), churn)
            finally:
                for task_ in churn:
                    task_.cancel()
                await asyncio.gather(*churn, return_exceptions=True)
        return series_of(samples)

    async def _samples(self, sampler: Sampler, churn: list[asyncio.Task[None]]) -> list[Sample]:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds
        samples = [await sampler.look()]
        while loop.time() < until:
            await asyncio.sleep(self._every_s)
            for ended in (t for t in churn if t.done()):
                ended.result()  # raises what ended it: a soak without churn proves nothing
            samples.append(await sampler.look())
        return samples

    async def _tenants(self, world: World) -> None:
        """A new tenant a second with new sessions; the oldest is purged; a policy of a lasting one is written again."""
        fleet, caller = world.fleet, world.caller
        levers = RedisLevers(fleet.keys, fleet.nodes, lever_scripts())
        purger = Purger(RedisTenants(fleet.keys, fleet.nodes), levers, fleet, Actor(principal="soak"), forget_ms=0)
        for number in itertools.count():
            name = f"guest-{number}"
            await fleet.publisher.apply(name, policy_id="default", document=orjson.dumps(_STICKY))
            for session in range(3):
                body = task(name, f"guest-{number}-{session}", context={"session_id": f"s-{number}-{session}"})
                with suppress(TimeoutError):
                    await caller.ask(body)
            await fleet.publisher.apply("sticky", policy_id="default", document=orjson.dumps(TENANTS["sticky"]))
            if number >= ALIVE:
                await purger.purge(f"guest-{number - ALIVE}", confirm=f"guest-{number - ALIVE}")
            await asyncio.sleep(1)

    async def _replacements(self, world: World) -> None:
        """The last pod is replaced again and again; the first two stay, and are measured."""
        while True:
            await asyncio.sleep(REPLACE_EVERY_S)
            pod = world.fleet.pods[-1]
            await pod.stop()
            await pod.start()


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, default=None, help="minutes before the first sample (a fifth)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between samples (10)")
    parser.add_argument("--rate", type=float, default=100.0, help="new requests a second (100)")
    parser.add_argument("--folder", type=Path, default=None, help="for data and logs; kept; must not exist")
    wanted = parser.parse_args()
    folder: Path = wanted.folder or Path(tempfile.mkdtemp(prefix="router-soak-"))
    warm_up = wanted.minutes / 5 if wanted.warm_up is None else wanted.warm_up
    seconds = (wanted.minutes - warm_up) * 60
    soak = Soak(folder, seconds=seconds, warm_up_s=warm_up * 60, every_s=wanted.every, rate=wanted.rate)
    series = asyncio.run(soak.run())
    print(table(series))
    steep = [s.name for s in series if not s.flat]
    if steep:
        print(f"not flat: {', '.join(steep)}; data and logs are in {folder}")
        return 1
    print(f"all {len(series)} series are flat over {seconds / 60:.1f} minutes")
    if wanted.folder is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
