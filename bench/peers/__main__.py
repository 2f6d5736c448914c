"""`python -m bench.peers`: this router beside other limiters and routers. See the README of `bench`.

A peer that cannot be installed or does not start is a row `not run`, and no failure.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console

from bench.document import sections
from bench.peers import speed
from bench.peers.install import NotInstalled, Peers, install
from bench.peers.right import compare
from bench.peers.right.scenario import Size
from bench.processes import BenchFailed

SPEED, RIGHT = "beside peers", "right, beside peers"


def main() -> int:
    """0: measured, and this router was right; 1: it was not; 2: this router could not be measured."""
    arguments = _arguments()
    # SIGTERM must unwind like Ctrl-C, so that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, soft_wrap=True)
    peers = _peers(console)
    found: dict[str, object] = {}
    right = True
    with tempfile.TemporaryDirectory(prefix="router-peers-") as folder:
        try:
            if arguments.only != "right":
                found["speed"] = _speed(peers, Path(folder), arguments, console)
            if arguments.only != "speed":
                found["right"] = rows = _right(peers, Path(folder), arguments, console)
                right = all(row.verdict is not None and row.verdict.right for row in rows if row.name == compare.OURS)
        except BenchFailed as fault:
            console.print(str(fault))
            return 2
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    return int(not right)


def _peers(console: Console) -> Peers | NotInstalled:
    console.print("installing the peers into .tools/peers, if they are not there", style="dim")
    try:
        return install()
    except NotInstalled as missing:
        console.print(f"the peers are not installed: {missing}")
        return missing


def _speed(
    peers: Peers | NotInstalled, folder: Path, arguments: argparse.Namespace, console: Console
) -> list[speed.Row]:
    effort = speed.Effort(arguments.rounds, measure_s=arguments.seconds)
    rows = speed.Speed(peers, folder, effort).run()
    said = (
        f"{sections.stamp('make bench-peers')} {speed.OUTSTANDING} operations outstanding, {effort.rounds} rounds of "
        f"{effort.measure_s:g} s, medians; one CPU for the process, Redis and the load on the others.\n"
        f"{speed.versions()}\n\n{speed.table(rows)}"
    )
    console.print(f"\n{said}\n")
    if arguments.write:
        sections.write(SPEED, said)
    return rows


def _right(
    peers: Peers | NotInstalled, folder: Path, arguments: argparse.Namespace, console: Console
) -> list[compare.Row]:
    size = Size(arguments.requests)
    names = [name for name in compare.CONTENDERS if not arguments.peer or name in arguments.peer]
    rows: list[compare.Row] = []
    for name in names:
        rows.append(compare.run(name, peers, folder / f"right-{len(rows)}", size))
        console.print(f"{name}: {rows[-1].verdict or rows[-1].not_run}", style="dim")
    said = f"{sections.stamp('make bench-peers')} {size.requests:,} requests.\n\n{compare.table(rows, size)}"
    console.print(f"\n{said}\n")
    if arguments.write:
        sections.write(RIGHT, said)
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="This router beside others.")
    parser.add_argument("--only", choices=("speed", "right"), help="one of the two comparisons")
    parser.add_argument(
        "--peer", action="append", default=[], choices=compare.CONTENDERS, help="in `right`, only these"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of the speed (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured of each in a round (2)")
    parser.add_argument("--requests", type=int, default=1_000, help="of the scenario (1,000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/PERFORMANCE.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
