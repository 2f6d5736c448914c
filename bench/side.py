"""One side of `bench.compare`: `python -P side.py OUTSTANDING… WARMUP_S MEASURE_S`, with its tree on PYTHONPATH.

It starts the stack of the tree that PYTHONPATH names (pod, bench and scripts of that revision), measures the closed
loop at each number of outstanding requests, and prints one line of JSON. From that tree it needs only `Stack`,
`Placement`, the generator's `closed`, and what `bench.measure` says of load commands: START, END, a line of JSON.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.processes import Placement
from bench.stack import SUBJECT, Stack

_SCRIPT_COMMANDS = ("evalsha", "eval", "fcall")


def main() -> int:
    """Measure and print."""
    *outstanding, warmup_s, measure_s = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="router-bench-") as folder:
        stack = Stack(Path(folder), Placement.split(), None)
        try:
            stack.start()
            found = {n: closed(stack, int(n), float(warmup_s), float(measure_s)) for n in outstanding}
        finally:
            stack.stop()
    print(json.dumps(found))
    return 0


def closed(stack: Stack, outstanding: int, warmup_s: float, measure_s: float) -> dict[str, float]:
    """µs per decision: `redis` in the script calls, as INFO commandstats counts it, and `pod` of CPU."""
    command = stack.generator.closed(SUBJECT, outstanding, warmup_s, measure_s)
    with subprocess.Popen(
        [sys.executable, "-m", "bench.child", stack.placement.rest, *command], stdout=subprocess.PIPE, text=True
    ) as load:
        try:
            before = _bill(stack, load, "START")
            after = _bill(stack, load, "END")
            assert load.stdout is not None
            report: dict[str, Any] = json.loads(load.stdout.readline())
        finally:
            load.kill()
    stack.wipe()
    wrong = {name: report[name] for name in ("lost", "duplicates", "errors") if report.get(name)}
    if wrong or not report["answered"]:
        raise SystemExit(f"not every request was answered well, so nothing is measured: {report}")
    answered = report["answered"]
    return {name: (after[name] - before[name]) / answered for name in before} | {"rate": report["rate"]}


def _bill(stack: Stack, load: "subprocess.Popen[str]", sign: str) -> dict[str, float]:
    assert load.stdout is not None
    line = load.stdout.readline().strip()
    if line != sign:
        raise SystemExit(f"the load command said {line!r} instead of {sign}")
    stats = stack.redis.info("commandstats")
    assert isinstance(stats, dict)
    script_us = sum(stats[f"cmdstat_{name}"]["usec"] for name in _SCRIPT_COMMANDS if f"cmdstat_{name}" in stats)
    return {"redis": float(script_us), "pod": stack.processes["pod"].cpu_s() * 1e6}


if __name__ == "__main__":
    sys.exit(main())
