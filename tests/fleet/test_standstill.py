"""A pod that stood still: what waited is refused at once, nothing stays without an answer, and it serves on."""

import asyncio
import os
import signal
import time
from collections import Counter

import orjson

from tests.fleet.conftest import Own
from tests.fleet.foreign import Reply, task
from tests.fleet.harness import PLAIN, Pod

ACME = {"acme": {"default": PLAIN}}


def _signal(pod: Pod, number: signal.Signals) -> None:
    assert pod.process is not None
    pod.process.send_signal(number)


async def test_a_pod_that_stood_still_for_five_seconds(own: Own) -> None:
    """Two pods, one of them stopped for 5 s under a steady load: every request has exactly one answer. What the stopped
    pod was sent meanwhile is refused as overload, within a second of its return, and decided when it is sent again."""
    fleet, caller = await own(policies=ACME)
    await caller.all([task("acme") for _ in range(50)])
    still = fleet.pods[0]
    sent: list[tuple[float, asyncio.Future[Reply]]] = []
    ended: dict[int, float] = {}

    async def ask(count: int) -> None:
        for _ in range(count):
            number = len(sent)
            future = await caller.send(orjson.dumps(task("acme", f"r-{number}")))
            future.add_done_callback(lambda _, n=number: ended.setdefault(n, time.monotonic()))
            sent.append((time.monotonic(), future))
            await asyncio.sleep(0.01)

    await ask(100)
    _signal(still, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        while time.monotonic() - stopped < 5:
            await ask(10)
    finally:
        _signal(still, signal.SIGCONT)
    back = time.monotonic()
    await ask(100)
    replies = await asyncio.wait_for(asyncio.gather(*(future for _, future in sent)), 30)
    late = [n for n, (at, _) in enumerate(sent) if ended[n] - at > 0.6]
    codes = Counter(r.error["code"] for r in replies if not r.ok)
    print(
        f"\n{len(sent)} sent, {len(late)} over 600 ms, refused {dict(codes)}, "
        f"last late answer {max((ended[n] - back for n in late), default=0):.2f} s after its return, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    assert caller.doubles() == 0
    waited = [n for n, (at, _) in enumerate(sent) if stopped < at < back - 1.0 and replies[n].pod == still.name]
    assert len(waited) > 10
    assert {replies[n].error["code"] for n in waited} == {"service_overloaded"}
    assert {replies[n].error["details"]["retry_after_ms"] > 0 for n in waited} == {True}
    assert still.logged("pod.stood_still")
    metrics = await still.metrics()
    assert metrics['router_shed_total{cause="stale"}'] >= len(waited)
    # It serves on, and a request that was refused is decided under its id.
    again = await caller.all([task("acme", f"r-{waited[0]}") for _ in range(20)])
    assert all(r.ok for r in again)
    assert len({r.decision["decision_id"] for r in again}) == 1
    assert {r.pod for r in await caller.all([task("acme") for _ in range(40)])} == {p.name for p in fleet.pods}
