"""One measurement: run a load command, and say what it got and what each process paid for it.

A load command prints START and END when its measured window opens and closes, then one line of JSON with at least
`answered` and `window_s`. That is the contract of loadgen.c, of its Python stand-in and of the ceilings alike.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from redis import Redis

from bench.processes import HOST, BenchFailed, Process, machine_busy_s

_SCRIPT_COMMANDS = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")
_TIMEOUT_S = 120


class Latency(Struct, frozen=True):
    """Microseconds."""

    mean: float = 0
    p50: float = 0
    p90: float = 0
    p99: float = 0
    p999: float = 0
    max: float = 0


class LoadReport(Struct, frozen=True):
    """What a load command says. `answered` were answered inside the window; `ok` of those sampled were good."""

    answered: int
    window_s: float
    rate: float = 0
    ok: int = 0
    replayed: int = 0
    duplicates: int = 0
    lost: int = 0
    generator_cpu_s: float = 0
    late_max_us: float = 0
    errors: dict[str, int] = {}
    latency_us: Latency = Latency()


class Measurement(Struct, frozen=True):
    """A report with its bill: CPU in µs per answered request by process, and the script calls that Redis served."""

    load: LoadReport
    cpu_us: dict[str, float]
    script_calls: int = 0
    foreign_cpus: float = 0

    @property
    def rows_per_call(self) -> float:
        """Decisions that shared one Redis call."""
        return self.load.answered / self.script_calls if self.script_calls else 0

    @property
    def faults(self) -> str:
        """What went wrong, in words; empty when every request was answered once and well."""
        said = dict(self.load.errors)
        said |= {k: v for k in ("lost", "duplicates", "replayed") if (v := getattr(self.load, k))}
        return ", ".join(f"{v} {k}" for k, v in said.items())


def measure(command: Sequence[str], cpus: str, watched: Mapping[str, Process], redis_port: int | None) -> Measurement:
    """Run a load command on these CPUs; `watched` are the processes to bill.

    `foreign_cpus` is the CPUs' worth of work in the window by processes that are none of this bench: when it is not
    near zero the machine was shared, and throughput and latency suffered.

    :raises BenchFailed: the load command failed.
    """
    redis = Redis(HOST, redis_port) if redis_port else None
    with subprocess.Popen(
        [sys.executable, "-m", "bench.child", cpus, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            before = _bill(child, watched, redis, "START")
            after = _bill(child, watched, redis, "END")
            out, err = (
                child.stdout.readline(),
                child.stderr.read(),
            )  # not communicate(): it loses what readline buffered
            code = child.wait(_TIMEOUT_S)
        finally:
            child.kill()
    if code or not out:
        raise BenchFailed(f"{command[0]} failed: {err.strip()[-2000:]}")
    report = msgspec.json.decode(out, type=LoadReport)
    used = {name: after[name] - before[name] for name in watched}
    foreign = after["~machine"] - before["~machine"] - sum(used.values()) - report.generator_cpu_s
    share = 1e6 / max(1, report.answered)
    cpu_us = {name: s * share for name, s in used.items()} | {"generator": report.generator_cpu_s * share}
    calls = int(after["~calls"] - before["~calls"])
    return Measurement(report, cpu_us, calls, max(0.0, foreign / (after["~clock"] - before["~clock"])))


def _bill(
    child: "subprocess.Popen[str]", watched: Mapping[str, Process], redis: Redis | None, sign: str
) -> dict[str, float]:
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    if line != sign:
        assert child.stderr is not None
        raise BenchFailed(f"the load command said {line!r} instead of {sign}: {child.stderr.read()[-2000:]}")
    bill = {name: p.cpu_s() for name, p in watched.items()}
    bill |= {"~machine": machine_busy_s(), "~clock": time.monotonic(), "~calls": _script_calls(redis) if redis else 0}
    return bill


def _script_calls(redis: Redis) -> int:
    stats = redis.info("commandstats")
    assert isinstance(stats, dict)
    return sum(stats[c]["calls"] for c in _SCRIPT_COMMANDS if c in stats)
