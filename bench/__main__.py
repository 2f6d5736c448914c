"""`python -m bench [--quick] [--json FILE] [--check]`: see the README in this folder."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from redis import Redis
from rich.console import Console

from bench.bars import Bar, bars
from bench.document.sizing import written
from bench.processes import HOST, BenchFailed, Placement, start_valkey
from bench.report import Run, conditions, progress, show, show_bars, show_store
from bench.rounds import FULL, QUICK, Bench, Effort, Record
from bench.stack import Stack
from bench.store import audit, capacity, memory
from bench.store.audit import QueryCost
from bench.store.capacity import AuditRate
from bench.store.memory import KeyCost

_STATE_ROWS = 40_000


def main() -> int:
    """Run the bench; 0, or 1 when --check is given and a promise does not hold, or 2 when it could not run."""
    arguments = _arguments()
    console = Console(stderr=False, width=None if sys.stdout.isatty() else 160)
    # SIGTERM must unwind like Ctrl-C, so that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    effort = QUICK if arguments.quick else FULL
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="router-bench-") as folder:
            done = (_memory_only if arguments.memory else _run)(Path(folder), effort, arguments.redis_server, console)
    except BenchFailed as fault:
        console.print(f"[red]{fault}[/]", markup=True)
        return 2
    if isinstance(done, Run):
        show(done, console)
        if arguments.write:
            written(done)
    promised = done.bars if isinstance(done, Run) else done
    console.print(f"took {time.monotonic() - started:.0f} s")
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(done), indent=1))
    return int(arguments.check and not all(b.holds for b in promised))


def _memory_only(folder: Path, effort: Effort, redis_server: Path | None, console: Console) -> list[Bar]:
    costs = _memory(folder, Placement.split(), effort, redis_server)
    found = memory.bars(costs)
    show_store(costs, [], console)
    show_bars(found, console)
    return found


def _run(folder: Path, effort: Effort, redis_server: Path | None, console: Console) -> Run:
    placement = Placement.split()
    policies = capacity.policy_bytes()
    costs = _memory(folder, placement, effort, redis_server)
    queries, rate = _audit(folder, placement, effort)
    main_stack, durable = Stack(folder, placement, None), Stack(folder, placement, "everysec")

    def say(record: Record) -> None:
        console.print(progress(record), highlight=False)

    try:
        main_stack.start().start_beside()
        durable.start()
        records = Bench(main_stack, durable, effort, say).run()
        native = main_stack.generator.native
    finally:
        durable.stop()
        main_stack.stop()
    promised = [*bars(records), *memory.bars(costs)]
    figures = capacity.figures(rate, [c for c in costs if c.server.startswith("valkey")], policies)
    return Run(conditions(placement, effort, native=native), records, costs, queries, figures, promised)


def _memory(folder: Path, placement: Placement, effort: Effort, redis_server: Path | None) -> list[KeyCost]:
    """Bytes per key on the embedded Valkey, and on a Redis if there is one."""
    found: list[KeyCost] = []
    for name, binary in (("valkey", None), ("redis", redis_server)):
        if name == "redis" and binary is None:
            continue
        at = folder / f"memory-{name}"
        at.mkdir()
        process, port = start_valkey(at, placement.rest, appendfsync=None, binary=binary)
        try:
            redis = Redis(HOST, port)
            found.append(memory.idempotency(redis, effort.memory_keys))
            found += memory.final_results(redis, effort.memory_keys // 50)
            found.append(memory.message_index(redis, effort.memory_keys // 50))
            memory.filled(redis, _STATE_ROWS, 0)
            found += memory.left_behind(redis)
        finally:
            process.stop()
    return sorted(found, key=lambda c: c.kind)


def _audit(folder: Path, placement: Placement, effort: Effort) -> tuple[list[QueryCost], AuditRate]:
    """Pages of a long audit log, and audit entries a second, on a server of their own."""
    (folder / "audit").mkdir()
    process, port = start_valkey(folder / "audit", placement.rest, appendfsync=None)
    try:
        return audit.measure(port, effort.memory_keys), capacity.audit_rate(Redis(HOST, port))
    finally:
        process.stop()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="How fast one pod is, and beside what.")
    parser.add_argument("--quick", action="store_true", help="under a minute instead of about ten, and rougher")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement to FILE")
    parser.add_argument("--memory", action="store_true", help="bytes per key only")
    parser.add_argument(
        "--redis-server",
        type=Path,
        metavar="FILE",
        default=shutil.which("redis-server"),
        help="a Redis to measure bytes per key on as well; redis-server on PATH when there is one",
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a promise does not hold")
    parser.add_argument(
        "--write", action="store_true", help="write the size table and the plots of docs/PERFORMANCE.md"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
