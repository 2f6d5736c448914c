"""What a change costs: `python -m bench.compare BASE` measures the revision BASE and the working tree side by side.

Each round measures BASE, BASE once more (A/A: what two measurements of the same code differ by) and the working tree,
each with servers and a pod of its own that start for it, so that no process keeps its luck over the rounds. The order
rotates. A figure is Redis µs per decision (INFO commandstats of the script calls) or pod CPU µs per decision; a ratio
is the median over the rounds of the ratio within a round.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from msgspec import Struct
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
BEFORE, AGAIN, AFTER = "before", "again", "after"
SIDES = (BEFORE, AGAIN, AFTER)
FIGURES = {"redis": "Redis µs", "pod": "pod CPU µs"}
_TIMEOUT_S = 300
_TRIES = 4

Round = dict[str, dict[str, dict[str, float]]]
"""side → outstanding → figure → µs per decision."""


class CompareFailed(Exception):
    """A side could not be measured; the message holds what it said."""


class Comparison(Struct, frozen=True):
    """One figure at one number of outstanding requests. A ratio above 1 costs more than before."""

    name: str
    before: float
    after: float
    ratio: float
    same: float
    """The A/A ratio, the larger above the smaller."""

    def holds(self, tolerance: float) -> bool:
        """Whether it costs no more than the tolerance allows, or than the same code against itself."""
        return self.ratio <= max(tolerance, self.same)


def compare(rounds: list[Round]) -> list[Comparison]:
    """Every figure over all rounds."""
    found: list[Comparison] = []
    for outstanding in rounds[0][BEFORE]:
        for figure, title in FIGURES.items():
            values = {side: [r[side][outstanding][figure] for r in rounds] for side in SIDES}
            ratio = median(b / a for a, b in zip(values[BEFORE], values[AFTER], strict=True))
            same = median(b / a for a, b in zip(values[BEFORE], values[AGAIN], strict=True))
            name = f"{title} per decision, {outstanding} outstanding"
            found.append(Comparison(name, median(values[BEFORE]), median(values[AFTER]), ratio, max(same, 1 / same)))
    return found


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A temporary git worktree of the revision.

    :raises CompareFailed: there is no such revision.
    """
    with tempfile.TemporaryDirectory(prefix="router-base-") as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--detach", "--quiet", str(tree), revision)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def measure(tree: Path, arguments: list[str]) -> dict[str, dict[str, float]]:
    """Measure the tree with its own bench and pod.

    :raises CompareFailed: it could not be measured.
    """
    command = [sys.executable, "-P", str(ROOT / "bench" / "side.py"), *arguments]
    env = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise CompareFailed(f"{tree} could not be measured:\n{done.stderr[-3000:]}")
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode:
        raise CompareFailed(f"git {arguments[0]} {arguments[1]}: {done.stderr.strip()}")


def _run(arguments: argparse.Namespace, console: Console) -> list[Comparison]:
    options = [*map(str, arguments.outstanding), str(arguments.warmup), str(arguments.seconds)]
    rounds: list[Round] = []
    with checked_out(arguments.base) as base:
        trees = {BEFORE: base, AGAIN: base, AFTER: ROOT}
        for number in range(arguments.rounds):
            first = number % len(SIDES)
            found = _round(trees, SIDES[first:] + SIDES[:first], options, console)
            rounds.append(found)
            console.print(f"round {number + 1}: {_line(found)}", highlight=False, soft_wrap=True)
    return compare(rounds)


def _round(trees: dict[str, Path], order: tuple[str, ...], options: list[str], console: Console) -> Round:
    """One round. A side that did not answer all requests well is measured again with the whole round."""
    for _ in range(_TRIES - 1):
        try:
            return {side: measure(trees[side], options) for side in order}
        except CompareFailed as fault:
            console.print(f"measured again: {fault}", highlight=False)
    return {side: measure(trees[side], options) for side in order}


def _line(found: Round) -> str:
    return "; ".join(
        f"{title} at {outstanding}: " + " / ".join(f"{found[side][outstanding][figure]:.2f}" for side in SIDES)
        for outstanding in found[BEFORE]
        for figure, title in FIGURES.items()
    )


def _table(found: list[Comparison], tolerance: float) -> Table:
    table = Table(title="Before and after", title_justify="left")
    for name in ("figure", "before", "after", "after ÷ before", "A ÷ A", ""):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for c in found:
        verdict = "[green]PASS[/]" if c.holds(tolerance) else "[red]FAIL[/]"
        table.add_row(c.name, f"{c.before:.2f}", f"{c.after:.2f}", f"{c.ratio:.3f}", f"{c.same:.3f}", verdict)
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="What a change costs per decision.")
    parser.add_argument("base", help="the revision to compare the working tree with")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--outstanding", type=int, nargs="+", default=[256, 16], help="requests under way (256 16)")
    parser.add_argument("--seconds", type=float, default=2.5, help="measured of each (2.5)")
    parser.add_argument("--warmup", type=float, default=0.7, help="seconds before (0.7)")
    parser.add_argument("--tolerance", type=float, default=1.03, help="a larger ratio fails (1.03)")
    return parser.parse_args()


def main() -> int:
    """0: nothing costs more; 1: something does; 2: it could not be measured."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        found = _run(arguments, console)
    except CompareFailed as fault:
        print(fault, file=sys.stderr)
        return 2
    console.print(_table(found, arguments.tolerance))
    return int(not all(c.holds(arguments.tolerance) for c in found))


if __name__ == "__main__":
    sys.exit(main())
