"""A storm of cancelled calls and cut connections: no answer ever carries another's data.

`python -m tests.fuzz.storm --count 1000000 --seed 7`. One pod decides for many tenants and reads values of theirs,
through a proxy that cuts, halves and delays the connections to a Redis of its own; a third of the callers go away at
some moment. Every answer that arrives is held against what its caller asked. Exit code 1: one was another's, or hung.
"""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis

from router.domain.decide.outcome import Admitted, Outcome, Replay, Unavailable
from router.domain.ids import name_in
from router.errors import StoreError
from router.store.decide.calls import LaneSettings
from router.store.servers.nodes import SingleNode
from tests.chaos.proxy import Proxy
from tests.servers import ValkeyProcess
from tests.store.harness import Ask, policy, request
from tests.store.pods import Pod, fresh_keys

TENANTS, WAVE, READS = 64, 100, 25
HANGS_S = 20


class Storm:
    """Waves of requests; counts what came of them."""

    def __init__(self, port: int, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it shall be repeatable
        self._port = port
        self._policies = {f"t{i}": policy(f"p-t{i}") for i in range(TENANTS)}
        self._asked: list[Ask] = []
        self.asked = self.decided = self.replayed = self.read = self.cancelled = self.unanswered = self.cuts = 0
        self.wrong: list[str] = []
        self.values: dict[bytes, bytes] = {}

    async def run(self, count: int) -> None:
        """At least so many requests."""
        proxy = Proxy(self._port)
        await proxy.start()
        nodes, keys = SingleNode(f"redis://127.0.0.1:{proxy.port}/0"), fresh_keys()
        self.values = {f"{keys.schema}:value:{i}".encode(): f"value of {i}".encode() for i in range(1_000)}
        with Redis(port=self._port) as direct:
            direct.mset(self.values)
        async with Pod(nodes, keys, settings=LaneSettings(deadline_ms=150, retry_ms=2)) as pod:
            cutter = asyncio.create_task(self._cut(proxy))
            while self.asked < count and not self.wrong:
                await self._wave(pod, nodes)
            cutter.cancel()
            with suppress(asyncio.CancelledError):
                await cutter
        await nodes.close()
        await proxy.close()

    async def _cut(self, proxy: Proxy) -> None:
        r = self._random
        while True:
            await asyncio.sleep(r.uniform(0.001, 0.03))
            self.cuts += 1
            if r.random() < 0.15:
                await proxy.delay(r.uniform(0, 0.02), r.uniform(0, 0.05))
            else:
                pick = None if r.random() < 0.2 else r.randrange(64)
                after, half = r.choice((0, 1, 7, 60, 500, 3_000)), r.random() < 0.2
                await proxy.end(
                    pick, after_bytes=after, upstream=r.random() < 0.5, hold_s=r.uniform(0, 0.01), half=half
                )

    async def _wave(self, pod: Pod, nodes: SingleNode) -> None:
        r = self._random
        waiting: list[tuple[Ask | bytes, asyncio.Future[Any]]] = [self._decide(pod) for _ in range(WAVE)]
        keys = r.choices(list(self.values), k=READS)
        waiting += [(key, asyncio.ensure_future(self._get(nodes, key))) for key in keys]
        self.asked += len(waiting)
        for _ in range(r.choice((0, 1, 1, 2, 5))):
            await asyncio.sleep(0)
        for _, future in r.sample(waiting, len(waiting) // 3):
            future.cancel()
        _, hung = await asyncio.wait([f for _, f in waiting], timeout=HANGS_S)
        if hung:
            self.wrong.append(f"{len(hung)} requests have no answer after {HANGS_S} s")
        for asked, future in waiting:
            if future.cancelled() or future in hung:
                self.cancelled += future.cancelled()
            elif isinstance(asked, bytes):
                self.check_read(asked, future.result())
            else:
                self.check(asked, future.result())

    def _decide(self, pod: Pod) -> tuple[Ask, asyncio.Future[Outcome]]:
        """A new request, or one that was asked before."""
        r = self._random
        if self._asked and r.random() < 0.3:
            ask = r.choice(self._asked)
        else:
            tenant = f"t{r.randrange(TENANTS)}"
            ask = Ask(request(tenant, f"r{r.getrandbits(60)}"), self._policies[tenant])
            self._asked = [*self._asked[-500:], ask]
        return ask, pod.submit(ask)

    @staticmethod
    async def _get(nodes: SingleNode, key: bytes) -> object:
        try:
            return await nodes.call("GET", key)
        except StoreError:
            return None

    def check(self, ask: Ask, outcome: Outcome) -> None:
        """Hold a decision against what its caller asked."""
        tenant = ask.request.tenant_id
        match outcome:
            case Admitted():
                self.decided += 1
                if name_in(outcome.decision_id) != ask.plan.name:
                    self.wrong.append(f"{tenant} {ask.request.request_id} got {outcome}")
            case Replay():
                self.replayed += 1
                answer = outcome.remembered
                if name_in(answer.decision_id) != ask.plan.name or answer.provider_id != f"p-{tenant}":
                    self.wrong.append(f"{tenant} {ask.request.request_id} got {outcome}")
            case Unavailable():
                self.unanswered += 1
            case _:
                self.wrong.append(f"{tenant} {ask.request.request_id} got {outcome}")

    def check_read(self, key: bytes, value: object) -> None:
        """Hold a value against its key; None: the read failed."""
        if value is None:
            self.unanswered += 1
            return
        self.read += 1
        if value != self.values[key]:
            self.wrong.append(f"GET {key!r} got {value!r}")

    def __str__(self) -> str:
        return (
            f"{self.asked:,} asked: {self.decided:,} decided, {self.replayed:,} replayed, {self.read:,} read, "
            f"{self.cancelled:,} cancelled, {self.unanswered:,} unavailable; {self.cuts:,} faults, "
            f"{len(self.wrong)} wrong"
        )


def main() -> int:
    """Storm, print, and say whether all held."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.storm", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="requests")
    parser.add_argument("--seed", type=int, default=None, help="draw as the run of this seed (not the same timing)")
    args = parser.parse_args()
    seed = secrets.randbits(32) if args.seed is None else args.seed
    print(f"storm: seed {seed}, {args.count:,} requests", flush=True)
    with tempfile.TemporaryDirectory(prefix="router-storm-") as folder, ValkeyProcess(Path(folder)) as server:
        storm = Storm(server.port, seed)
        asyncio.run(storm.run(args.count))
    print("\n".join((f"storm: {storm}", *storm.wrong[:20])))
    return 1 if storm.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
