"""`python -m bench.growth`: how the cost of a decision grows with the workload. See the README of `bench`."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import msgspec
from msgspec.structs import replace
from rich.console import Console

from bench.count import callgrind
from bench.document import sections
from bench.growth import costs, table
from bench.growth.shapes import BASE, SHAPES, label
from bench.processes import BenchFailed

SECTION = "how cost grows"


def main() -> int:
    """0: measured; 2: the base could not be measured."""
    arguments = _arguments()
    # SIGTERM must unwind like Ctrl-C, so that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, soft_wrap=True)
    effort = costs.Effort(arguments.rounds, measure_s=arguments.seconds, rate=arguments.rate)

    def say(grown: costs.Grown) -> None:
        ratio = grown.ratio
        said = f"pod {ratio.pod_us:.2f}, Redis {ratio.redis_us:.2f}" if ratio else f"not run: {grown.not_run}"
        console.print(f"{grown.shape.group} {grown.shape.name}: {said}", style="dim")

    try:
        with tempfile.TemporaryDirectory(prefix="router-growth-") as folder:
            found = costs.run(Path(folder), effort, arguments.only, say)
    except BenchFailed as fault:
        console.print(str(fault))
        return 2
    if not arguments.without_count:
        found = _counted(found, console)
    said = (
        f"{sections.stamp('make bench-growth')} {table.conditions(effort)} {table.base(found)}\n\n{table.table(found)}"
    )
    console.print(f"\n{said}\n")
    if arguments.write:
        sections.write(SECTION, said)
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    return 0


def _counted(found: list[costs.Grown], console: Console) -> list[costs.Grown]:
    """The rows, with the instructions of pod and script for the shapes that change a row."""
    try:
        pod = _ratios(callgrind.pod(callgrind.ROOT, "bench.growth.pod"))
        script = _ratios(callgrind.script(callgrind.ROOT, "bench.growth.script"))
    except (callgrind.CannotCount, callgrind.CountFailed) as why:
        console.print(f"instructions are not counted: {why}")
        return found
    names = [label(grown.shape) for grown in found]
    return [
        replace(grown, pod_instructions=pod.get(name), script_instructions=script.get(name))
        for grown, name in zip(found, names, strict=True)
    ]


def _ratios(counts: callgrind.Counts) -> dict[str, float]:
    return {name: count / counts[label(BASE)] for name, count in counts.items()}


def _arguments() -> argparse.Namespace:
    groups = sorted({shape.group for shape in SHAPES})
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="How the cost of a decision grows.")
    parser.add_argument("--only", action="append", default=[], choices=groups, help="only these groups of shapes")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each shape (2)")
    parser.add_argument("--seconds", type=float, default=1.0, help="measured of each in a round (1)")
    parser.add_argument("--rate", type=int, default=2_000, help="requests a second that pods share (2,000)")
    parser.add_argument("--without-count", action="store_true", help="count no instructions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--write", action="store_true", help="write the table into docs/PERFORMANCE.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
