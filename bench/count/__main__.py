"""Counts instructions per decision and holds them against the committed counts: `python -m bench.count`.

Microseconds differ by 40 % between two runs on one machine, instructions by less than 1 %. On the build that the
committed counts belong to, they are compared with those. On another build, the commit that wrote them is counted in the
same run. A change that costs more on purpose writes new counts with `--write`, and its commit says why.
"""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.compare import CompareFailed, checked_out
from bench.count import callgrind, figures
from bench.count.callgrind import ROOT, CannotCount, CountFailed, Counts, ValgrindMissing
from bench.processes import BenchFailed


def count(tree: Path) -> Counts:
    """Every load of a tree."""
    return callgrind.pod(tree) | callgrind.script(tree)


def _before(console: Console) -> Counts | None:
    """What to compare with; None: nothing is there."""
    build, counts = figures.committed()
    here = figures.build()
    if build == here:
        return counts
    differs = ", ".join(name for name in here if build.get(name) != here[name])
    base = figures.base()
    if base is None:
        console.print(f"not compared: the counts are of another build ({differs}), and the history lacks their commit")
        return None
    console.print(f"the counts are of another build ({differs}): their commit {base[:12]} is counted too")
    with checked_out(base) as tree:
        return count(tree)


def _table(found: list[figures.Grown]) -> Table:
    table = Table(title="Instructions per decision", title_justify="left")
    for name in ("load", "before", "now", "now ÷ before", ""):
        table.add_column(name, justify="left" if name == "load" else "right")
    for g in found:
        verdict = "[green]PASS[/]" if g.holds else "[red]FAIL[/]"
        table.add_row(g.load, f"{g.before:,.0f}", f"{g.after:,.0f}", f"{g.ratio:.3f}", verdict)
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.count", description="Instructions per decision.")
    parser.add_argument("--write", action="store_true", help="write the counts of this tree into figures.json")
    return parser.parse_args()


def main() -> int:
    """0: nothing grew, or this machine cannot count and says why; 1: a count grew; 2: counting failed.

    In CI a missing valgrind is a failure: `make tools` has put it there.
    """
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        callgrind.valgrind()
        counts = count(ROOT)
        if arguments.write:
            figures.write(counts)
        before = counts if arguments.write else _before(console)
    except CannotCount as missing:
        console.print(f"not counted: {missing}")
        return 2 if isinstance(missing, ValgrindMissing) and os.environ.get("CI") == "true" else 0
    except (BenchFailed, CountFailed, CompareFailed) as fault:
        print(fault, file=sys.stderr)
        return 2
    found = figures.compare(before or counts, counts)
    console.print(_table(found))
    return int(not all(g.holds for g in found))


if __name__ == "__main__":
    sys.exit(main())
