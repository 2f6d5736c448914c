"""What a soak measures, sample by sample, and the series of it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from statistics import quantiles

import psutil
from msgspec import Struct

from router.store.tenants.sample import kind_of_key
from tests.fleet.harness import Fleet, Pod
from tests.soak.slopes import Series
from tests.survive.load import OK, SteadyLoad

PER_REQUEST = frozenset({"idem", "claim", "message", "task", "job", "final", "steps", "strikes"})
"""Kinds of keys that live longer than a soak and that each request may add to: they grow with the decisions."""
_MB = 1e6


class PodSample(Struct, frozen=True):
    """One pod: resident memory in MB, open files, tasks of its event loop."""

    memory: float
    files: float
    tasks: float


class Sample(Struct, frozen=True):
    """One look at the whole fleet. `p99_ms`: of the answers since the sample before; `keys` by kind."""

    at: float
    pods: dict[str, PodSample]
    keys: Counter[str]
    decisions: int
    p99_ms: float


class Sampler:
    """Looks at the pods in `steady`, at Redis, and at what the load saw since the last look."""

    def __init__(self, fleet: Fleet, load: SteadyLoad, steady: Sequence[Pod]) -> None:
        self._fleet, self._load, self._steady = fleet, load, steady
        self._seen = 0

    async def look(self) -> Sample:
        """One sample."""
        asks = self._load.asks[self._seen :]
        self._seen = len(self._load.asks)
        took = sorted(a.took_s * 1000 for a in asks if a.outcome == OK)
        return Sample(
            at=asyncio.get_running_loop().time(),
            pods={pod.name: await self._pod(pod) for pod in self._steady},
            keys=await self._keys(),
            decisions=sum(bool(one.decisions) for one in self._load.asked.values()),
            p99_ms=quantiles(took, n=100)[98] if len(took) > 1 else 0.0,
        )

    async def _pod(self, pod: Pod) -> PodSample:
        assert pod.process is not None
        process = psutil.Process(pod.process.pid)
        tasks = (await pod.metrics())["router_loop_tasks"]
        return PodSample(process.memory_info().rss / _MB, process.num_fds(), tasks)

    async def _keys(self) -> Counter[str]:
        schema = self._fleet.keys.schema.encode()
        found: Counter[str] = Counter()
        cursor = 0
        while True:
            page, keys = await self._fleet.redis("SCAN", cursor, "COUNT", 2_000)
            found.update(kind_of_key(schema, key) for key in set(keys))
            if not (cursor := int(page)):
                return found


def series_of(samples: Sequence[Sample]) -> list[Series]:
    """Every series. The allowance is what the noise of a measurement is, not what a leak may have."""
    at = [s.at for s in samples]
    found: list[Series] = []
    for name in samples[0].pods:
        pods = [s.pods[name] for s in samples]
        memory = [p.memory for p in pods]
        found += [
            Series(f"{name}: memory MB", at, memory, 0.03 * memory[0] + 2),
            Series(f"{name}: open files", at, [p.files for p in pods], 8),
            Series(f"{name}: tasks", at, [p.tasks for p in pods], 12),
        ]
    p99 = [s.p99_ms for s in samples]
    found.append(Series("p99 ms", at, p99, max(10.0, 0.3 * p99[0])))
    for kind in sorted(set().union(*(s.keys for s in samples))):
        counts = [s.keys[kind] for s in samples]
        if kind in PER_REQUEST:
            each = [n / max(1, s.decisions) for n, s in zip(counts, samples, strict=True)]
            found.append(Series(f"keys {kind} a decision", at, each, 0.05 * each[0] + 0.01))
        else:
            found.append(Series(f"keys {kind}", at, counts, max(20.0, 0.05 * counts[0])))
    return found
