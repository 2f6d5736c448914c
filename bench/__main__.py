"""`python -m bench [--quick] [--json FILE] [--check]`: see the README in this folder."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from redis import Redis
from rich.console import Console

from bench import audit, capacity, memory
from bench.audit import QueryCost
from bench.bars import bars
from bench.capacity import AuditRate
from bench.memory import KeyCost
from bench.processes import HOST, BenchFailed, Placement, start_valkey
from bench.report import Run, conditions, progress, show
from bench.rounds import FULL, QUICK, Bench, Effort, Record
from bench.stack import Stack

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
            run = _run(Path(folder), effort, console)
    except BenchFailed as fault:
        console.print(f"[red]{fault}[/]", markup=True)
        return 2
    show(run, console)
    console.print(f"took {time.monotonic() - started:.0f} s")
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1))
    return int(arguments.check and not all(b.holds for b in run.bars))


def _run(folder: Path, effort: Effort, console: Console) -> Run:
    placement = Placement.split()
    policies = capacity.policy_bytes()
    costs, queries, rate = _store(folder, placement, effort)
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
    figures = capacity.figures(rate, costs, policies)
    return Run(conditions(placement, effort, native=native), records, costs, queries, figures, bars(records))


def _store(folder: Path, placement: Placement, effort: Effort) -> tuple[list[KeyCost], list[QueryCost], AuditRate]:
    """Bytes per key, pages of a long audit log, and audit entries a second, on a server of their own."""
    (folder / "memory").mkdir()
    process, port = start_valkey(folder / "memory", placement.rest, appendfsync=None)
    try:
        redis = Redis(HOST, port)
        found = [memory.idempotency(redis, effort.memory_keys)]
        queries = audit.measure(port, effort.memory_keys)
        rate = capacity.audit_rate(redis)
        redis.flushall()
        memory.filled(redis, _STATE_ROWS, 0)
        return [*found, *memory.left_behind(redis)], queries, rate
    finally:
        process.stop()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="How fast one pod is, and beside what.")
    parser.add_argument("--quick", action="store_true", help="under a minute instead of about ten, and rougher")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement to FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 when a promise does not hold")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
