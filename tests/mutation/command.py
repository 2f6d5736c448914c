"""What `python -m tests.mutation.swaps` and `… .mutate` share: options, the sample, the report."""

import argparse
import hashlib
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from tests.mutation.argument_types import NotTyped
from tests.mutation.judge import ByCoverage, Effort, Given, Judge
from tests.mutation.line_map import LineMap, RecordFailed, recorded
from tests.mutation.listed import Listed, ListRefused
from tests.mutation.mutant import Candidate, Fate, Verdict, diff
from tests.mutation.near import Near
from tests.mutation.noticed import Choose, Noticed
from tests.mutation.workers import WorkerFailed

ROOT = Path(__file__).parents[2]


class Kind(Struct, frozen=True):
    """One kind of mutants: how to find all of them, which are accepted and noticed, and how many a run judges."""

    find: Callable[[Path], list[Candidate]]
    accepted: Path
    noticed: Path
    count: int


def run(program: str, description: str | None, kind: Kind) -> int:
    """0: every judged mutant is noticed; 1: some are not; 2: it could not run."""
    arguments = _arguments(program, description, kind.count)
    try:
        return _run(kind, arguments)
    except (ListRefused, NotTyped, RecordFailed, WorkerFailed) as fault:
        print(fault, file=sys.stderr)
        return 2


def _run(kind: Kind, arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    candidates = kind.find(ROOT)
    to_judge, accepted = Listed.read(kind.accepted).split(candidates)
    print(f"{len(candidates)} found, {len(accepted)} of them listed in {kind.accepted.name}", flush=True)
    chosen = [c for c in to_judge if all(word in c.name for word in arguments.only)]
    if not arguments.all:
        chosen = sample(chosen, arguments.count, arguments.seed)
    if arguments.list:
        print(*(c.name for c in chosen), sep="\n")
        return 0
    effort = Effort(arguments.workers, arguments.budget, arguments.timeout)
    noticed = Noticed(kind.noticed)
    judge = Judge(ROOT, noticed.first(_choice(arguments, effort)), effort)
    before = {c.path: (ROOT / c.path).read_text(encoding="utf-8") for c in chosen}
    print(f"judging {len(chosen)}, seed {arguments.seed}", flush=True)
    verdicts = judge.judge([c.mutant(before[c.path]) for c in chosen], _progress if arguments.verbose else _silent)
    if arguments.write:
        noticed.write(verdicts, present=[c.name for c in to_judge])
    return _report(verdicts, before, time.monotonic() - started)


def _choice(arguments: argparse.Namespace, effort: Effort) -> Choose:
    if arguments.near:
        return Near(ROOT)
    if arguments.tests:
        return Given(arguments.tests)
    return ByCoverage(_map(arguments), effort.budget_s)


def sample(candidates: list[Candidate], count: int, seed: int) -> list[Candidate]:
    """`count` of them, or all if there are no more; a new or changed candidate replaces at most one.

    Each is drawn by its class, function and change, so a file that moves leaves the sample as it was.
    """

    def key(candidate: Candidate) -> bytes:
        return hashlib.sha256(f"{seed} {candidate.where}: {candidate.what}".encode()).digest()

    return sorted(candidates, key=key)[:count]


def _map(arguments: argparse.Namespace) -> LineMap:
    if arguments.record is not None:
        return LineMap.read(ROOT, arguments.record)
    return recorded(ROOT, arguments.map)


def _report(verdicts: list[Verdict], before: dict[str, str], seconds: float) -> int:
    missed = [v for v in verdicts if not v.noticed]
    for verdict in missed:
        mutant = verdict.mutant
        print(f"\n{mutant.name}\n{verdict.fate}: {verdict.by}\n{diff(before[mutant.path], mutant)}")
    fates = ", ".join(f"{n} × {fate}" for fate in Fate if (n := sum(v.fate is fate for v in verdicts)))
    noticed = len(verdicts) - len(missed)
    share = 100 * noticed / max(1, len(verdicts))
    print(f"\n{noticed} of {len(verdicts)} noticed ({share:.1f} %): {fates}; {seconds:.0f} s, {_cpu_s():.0f} s of CPU")
    return int(bool(missed))


def _cpu_s() -> float:
    """What this process and all that it started have used."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def _progress(verdict: Verdict) -> None:
    print(f"{verdict.seconds:6.1f} s  {verdict.fate}: {verdict.mutant.name}  [{verdict.by}]", flush=True)


def _silent(_verdict: Verdict) -> None:
    pass


def _arguments(program: str, description: str | None, count: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.mutation.{program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=count, help=f"how many to judge ({count})")
    parser.add_argument("--seed", type=int, default=1, help="chooses which")
    parser.add_argument("--all", action="store_true", help="judge all")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="those whose name contains TEXT")
    parser.add_argument("--list", action="store_true", help="print their names and judge none")
    parser.add_argument("--tests", nargs="+", metavar="TEST", help="judge by these tests instead of those that cover")
    parser.add_argument("--near", action="store_true", help="judge by the tests near the file, without a record")
    parser.add_argument("--map", nargs="+", default=["tests"], metavar="PATH", help="record coverage of these tests")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="use the coverage recorded there")
    parser.add_argument("--write", action="store_true", help="note which tests notice, for quicker runs")
    parser.add_argument("--workers", type=int, default=2, help="mutants judged at a time (2)")
    parser.add_argument("--budget", type=float, default=30, help="seconds of tests for one mutant, as recorded (30)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds after which a mutant counts as noticed (60)")
    parser.add_argument("-v", "--verbose", action="store_true", help="print each verdict")
    return parser.parse_args()
