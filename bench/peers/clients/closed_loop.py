"""A closed loop for a peer's own Python: standard library only. It is a load command (see bench.measure)."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable

_MAX_SAMPLES = 200_000
_TURNS = 8


async def run(operation: Callable[[int], Awaitable[str]], outstanding: int, warmup_s: float, measure_s: float) -> None:
    """Keep `outstanding` calls of `operation(number)` under way, and report; it says `ok`, or the name of an error.

    The window is as long as it really was: a busy event loop may open and close it late.
    """
    outcomes: Counter[str] = Counter()
    samples: list[float] = []
    measuring, ended = False, False

    async def caller(number: int) -> None:
        asked = 0
        while not ended:
            began = time.perf_counter()
            try:
                outcome = await operation(number)
            except Exception as fault:  # whatever a peer raises is counted under its name
                outcome = type(fault).__name__
            if measuring:
                outcomes[outcome] += 1
                if len(samples) < _MAX_SAMPLES:
                    samples.append(time.perf_counter() - began)
            number += outstanding
            asked += 1
            if asked % _TURNS == 0:
                await asyncio.sleep(0)  # an operation that never waits would keep the loop for itself

    callers = [asyncio.create_task(caller(n)) for n in range(outstanding)]
    await asyncio.sleep(warmup_s)
    print("START", flush=True)
    measuring, cpu, opened = True, time.process_time(), time.perf_counter()
    await asyncio.sleep(measure_s)
    measuring, cpu, window_s = False, time.process_time() - cpu, time.perf_counter() - opened
    print("END", flush=True)
    ended = True
    await asyncio.gather(*callers)
    print(json.dumps(_report(outcomes, samples, window_s, cpu)), flush=True)


def _report(outcomes: Counter[str], samples: list[float], window_s: float, cpu_s: float) -> dict[str, object]:
    answered, found = sum(outcomes.values()), sorted(samples) or [0.0]
    points = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    latency = {name: found[min(len(found) - 1, int(q * len(found)))] * 1e6 for name, q in points.items()}
    return {
        "answered": answered,
        "window_s": window_s,
        "rate": answered / window_s,
        "ok": outcomes["ok"],
        "errors": {name: count for name, count in outcomes.items() if name != "ok"},
        "generator_cpu_s": cpu_s,
        "latency_us": {"mean": sum(found) / len(found) * 1e6} | latency,
    }
