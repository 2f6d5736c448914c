"""Decisions a second and CPU per operation: this router beside its peers, interleaved within rounds."""

import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from msgspec import Struct
from redis import Redis

from bench.measure import Measurement, measure
from bench.peers import litellm_proxy
from bench.peers.install import NotInstalled, Peers, version
from bench.processes import HOST, BenchFailed, Placement, Process, start_valkey
from bench.stack import PATIENT, SUBJECT, Stack

OUTSTANDING, MAIN = 64, 256
_NEVER = 1_000_000_000


class Contestant(Struct, frozen=True):
    """One row: who, what an operation is, what it does and what it does not do."""

    name: str
    operation: str
    does: str
    does_not: str


OURS = Contestant(
    "this router",
    "a decision over NATS",
    "three limits, pin, four breakers, idempotency, audit, weighted choice; exact over all pods",
    "the call to the provider",
)
OURS_MAIN = Contestant(f"this router, {MAIN} outstanding", OURS.operation, OURS.does, OURS.does_not)
LIMITS = Contestant(
    "limits", "one `hit` in process", "one sliding window a tenant", "choice, idempotency, audit, breakers"
)
THROTTLED = Contestant("throttled-py", "one `limit` in process", LIMITS.does, LIMITS.does_not)
SHUFFLE = Contestant(
    "LiteLLM Router, simple-shuffle", "one pick in process", "weighted choice", "limits, idempotency, audit; no Redis"
)
LEAST_BUSY = Contestant(
    "LiteLLM Router, least-busy", "one pick in process", "choice by running calls", "limits, idempotency, audit"
)
PROXY = Contestant(
    "LiteLLM proxy, one worker",
    "an HTTP call with a mocked answer",
    "key, one limit, weighted choice, the call, cost, callbacks",
    "pins, idempotency, audit log (without PostgreSQL)",
)
CONTESTANTS = (OURS, OURS_MAIN, LIMITS, THROTTLED, SHUFFLE, LEAST_BUSY, PROXY)


class Effort(Struct, frozen=True):
    """How long to look, in seconds."""

    rounds: int = 3
    warmup_s: float = 0.7
    measure_s: float = 2.0


class Row(Struct, frozen=True):
    """Medians over the rounds. `process_us`: of the pod, of the proxy, or of the program that uses the library."""

    contestant: Contestant
    per_second: float = 0
    process_us: float = 0
    redis_us: float = 0
    nats_us: float = 0
    p50_ms: float = 0
    p99_ms: float = 0
    not_run: str = ""


class Speed:
    """Runs the rounds; a contestant that cannot run is left out of them, and its row says why."""

    def __init__(self, peers: Peers | NotInstalled, folder: Path, effort: Effort) -> None:
        self._peers = peers
        self._folder = folder
        self._effort = effort
        self._placement = Placement.split()
        self._not_run: dict[str, str] = {}

    def run(self) -> list[Row]:
        """All rounds."""
        stack = Stack(self._folder, self._placement, None, env=PATIENT)
        beside: list[Process] = []
        try:
            stack.start()
            redis, port = start_valkey(self._folder, self._placement.rest, appendfsync=None)
            beside.append(redis)
            proxy = self._proxy(port)
            if proxy is not None:
                beside.append(proxy[0])
            found: dict[str, list[Measurement]] = {c.name: [] for c in CONTESTANTS}
            for _ in range(self._effort.rounds):
                for contestant in CONTESTANTS:
                    self._one(contestant, stack, (redis, port), proxy, found[contestant.name])
        finally:
            for process in (*reversed(beside),):
                process.stop()
            stack.stop()
        return [self._row(c, found[c.name]) for c in CONTESTANTS]

    def _proxy(self, redis_port: int) -> tuple[Process, int] | None:
        if isinstance(self._peers, NotInstalled):
            return None
        process = None
        try:
            process, port = litellm_proxy.start(
                self._peers,
                self._folder,
                "litellm",
                self._placement.pod,
                redis_port=redis_port,
                limit=_NEVER,
                budget_cents=_NEVER,
            )
            litellm_proxy.wait(process, port)
        except (BenchFailed, OSError) as fault:
            if process is not None:
                process.stop()
            self._not_run[PROXY.name] = str(fault).strip().splitlines()[-1][:200]
            return None
        return process, port

    def _one(
        self,
        contestant: Contestant,
        stack: Stack,
        redis: tuple[Process, int],
        proxy: tuple[Process, int] | None,
        found: list[Measurement],
    ) -> None:
        if contestant.name in self._not_run:
            return
        try:
            if contestant in (OURS, OURS_MAIN):
                found.append(self._ours(stack, MAIN if contestant is OURS_MAIN else OUTSTANDING))
            else:
                found.append(self._peer(contestant, redis, proxy))
        except (BenchFailed, NotInstalled, OSError) as fault:
            self._not_run[contestant.name] = str(fault).strip().splitlines()[-1][:200]

    def _ours(self, stack: Stack, outstanding: int) -> Measurement:
        command = stack.generator.closed(SUBJECT, outstanding, self._effort.warmup_s, self._effort.measure_s)
        done = measure(command, self._placement.rest, stack.processes, stack.redis_port)
        stack.wipe()
        return _answered(done)

    def _peer(
        self, contestant: Contestant, redis: tuple[Process, int], proxy: tuple[Process, int] | None
    ) -> Measurement:
        if isinstance(self._peers, NotInstalled):
            raise self._peers
        process, port = redis
        times = [str(OUTSTANDING), str(self._effort.warmup_s), str(self._effort.measure_s)]
        watched, cpus = {"redis": process}, self._placement.pod
        match contestant.name:
            case LIMITS.name | THROTTLED.name:
                module = ["bench.peers.clients.limiter", "load", contestant.name, str(port)]
            case SHUFFLE.name | LEAST_BUSY.name:
                module = ["bench.peers.clients.picker", contestant.name.rpartition(" ")[2], str(port)]
            case _:
                assert proxy is not None
                module = ["bench.peers.litellm_proxy", str(proxy[1])]
                watched, cpus = watched | {"proxy": proxy[0]}, self._placement.rest
        python = sys.executable if contestant is PROXY else self._peers.python
        done = measure([python, "-m", *module, *times], cpus, watched, port)
        Redis(HOST, port).flushall()
        return _answered(done)

    def _row(self, contestant: Contestant, found: list[Measurement]) -> Row:
        if not found:
            why = self._not_run.get(contestant.name)
            if why is None and isinstance(self._peers, NotInstalled):
                why = str(self._peers)
            return Row(contestant, not_run=why or "nothing was measured")
        library = "pod" not in found[0].cpu_us and "proxy" not in found[0].cpu_us
        own = "generator" if library else "proxy" if "proxy" in found[0].cpu_us else "pod"
        return Row(
            contestant,
            per_second=median(m.load.rate for m in found),
            process_us=_cpu(found, own),
            redis_us=_cpu(found, "redis"),
            nats_us=_cpu(found, "nats"),
            p50_ms=median(m.load.latency_us.p50 for m in found) / 1000,
            p99_ms=median(m.load.latency_us.p99 for m in found) / 1000,
        )


def _answered(done: Measurement) -> Measurement:
    """Only good answers count: another one has cost less."""
    if done.faults or not done.load.answered:
        raise BenchFailed(f"not every operation went well: {done.faults or 'none was answered'}")
    return done


def _cpu(found: Iterable[Measurement], name: str) -> float:
    return median(m.cpu_us.get(name, 0.0) for m in found)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    columns = "who | an operation | /s | its process, µs | Redis, µs | NATS, µs | p50 ms | p99 ms | does | does not"
    head = f"| {columns} |\n|" + "---|" * 10
    return "\n".join([head, *map(_line, rows)])


def _line(row: Row) -> str:
    c = row.contestant
    figures = (
        [f"not run: {row.not_run}", *[""] * 5]
        if row.not_run
        else [
            f"{row.per_second:,.0f}",
            *(f"{us:.0f}" if us >= 0.05 else "–" for us in (row.process_us, row.redis_us, row.nats_us)),
            *(f"{ms:.1f}" for ms in (row.p50_ms, row.p99_ms)),
        ]
    )
    return "| " + " | ".join([c.name, c.operation, *figures, c.does, c.does_not]) + " |"


def versions() -> str:
    """Which versions and settings the peers had."""
    names = ", ".join(f"{name} {version(name)}" for name in ("limits", "throttled-py", "litellm"))
    return f"{names}. The proxy's settings: {litellm_proxy.SETTINGS}; no PostgreSQL."
