"""`python -m tests.survive`: what the fleet does under each fault; exit code 1: a promise is missed.

A row that cannot run here is printed as not run, and fails when CI=true. The folder with all data and logs is kept
when a promise is missed, or by --folder.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.survive.arena import run
from tests.survive.row import CannotRun, Outcome, Row
from tests.survive.rows import ROWS
from tests.survive.table import line, table

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/SURVIVAL.md"
MARK = "<!-- the table: make survive ARGS=--write -->\n"


def main() -> int:
    """Run what the arguments say."""
    wanted = _arguments()
    rows = [r for r in ROWS if (r.short or not wanted.short) and _is_named(r, wanted.only)]
    if wanted.list:
        print(*(f"{r.name:28} {'short ' if r.short else '      '} {r.fault}: {r.promise}" for r in rows), sep="\n")
        return 0
    folder: Path = wanted.folder or Path(tempfile.mkdtemp(prefix="router-survive-"))
    began = time.monotonic()
    outcomes = [_one(row, folder, wanted.rate) for row in rows]
    print(f"\n{table(outcomes)}\n")
    missed = [o for o in outcomes if o.missed]
    skipped = [o for o in outcomes if o.not_run]
    took = time.monotonic() - began
    print(f"{len(outcomes)} rows in {took:.0f} s: {len(missed)} missed, {len(skipped)} not run")
    if wanted.write:
        _write(outcomes, wanted.rate, took)
    if missed:
        print(f"data and logs are in {folder}")
    elif wanted.folder is None:
        shutil.rmtree(folder)
    return int(bool(missed) or (bool(skipped) and os.environ.get("CI", "").lower() == "true"))


def _one(row: Row, folder: Path, rate: float) -> Outcome:
    try:
        outcome = asyncio.run(run(row, folder / row.name, rate))
    except (CannotRun, pytest.skip.Exception, pytest.fail.Exception) as reason:  # the latter of `tests.servers.missing`
        outcome = Outcome(row=row, not_run=str(reason))
    print(line(outcome), flush=True)
    return outcome


def _is_named(row: Row, only: list[str]) -> bool:
    return not only or any(word in row.name for word in only)


def _write(outcomes: list[Outcome], rate: float, took: float) -> None:
    """Put the table into its document."""
    before = DOCUMENT.read_text(encoding="utf-8").partition(MARK)[0]
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    arguments = " ".join(a for a in sys.argv[1:] if a != "--write")
    command = f'make survive ARGS="{arguments}"' if arguments else "make survive"
    said = f"`{command}` on {today}, {rate:g} requests a second, {os.cpu_count()} cores, {took / 60:.0f} minutes.\n"
    DOCUMENT.write_text(f"{before}{MARK}\n{said}\n{table(outcomes)}\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.survive", description=__doc__)
    parser.add_argument("--short", action="store_true", help="only the rows that every change runs")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="rows whose name contains TEXT")
    parser.add_argument("--list", action="store_true", help="print the rows and run none")
    parser.add_argument("--rate", type=float, default=60.0, help="new requests a second (60)")
    parser.add_argument("--folder", type=Path, default=None, help="for data and logs; kept; must not exist")
    parser.add_argument("--write", action="store_true", help="put the table into docs/SURVIVAL.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
