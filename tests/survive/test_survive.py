"""The survival table itself: it notices what is lost, every row leads to the runbook, and what is not run is said."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from tests.fleet.foreign import Reply
from tests.servers import missing
from tests.survive import __main__ as command
from tests.survive.arena import Arena, run
from tests.survive.judge import judge
from tests.survive.load import HUNG, OK, Ask, SteadyLoad
from tests.survive.row import CannotRun, Outcome, Row
from tests.survive.rows import ROWS
from tests.survive.table import line, table

OPERATIONS = Path(__file__).parents[2] / "docs/OPERATIONS.md"


async def _nothing(_: Arena) -> None:
    pass


async def _flushed(ground: Arena) -> None:
    """Redis forgets everything, in the middle of the load."""
    await ground.fleet.redis("FLUSHALL", "SYNC")


ROW = Row(name="test.nothing", fault="nothing", promise="nothing", see="install", act=_nothing)


def _reply(context: dict[str, str]) -> Reply:
    return Reply(orjson.dumps({"ok": True, "context": context, "decision": {}}), {})


def _anchors() -> set[str]:
    headings = re.findall(r"^#+ (.+)$", OPERATIONS.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_leads_to_the_runbook(row: Row) -> None:
    """Its link is a heading of OPERATIONS."""
    assert row.see in _anchors()


def test_the_names_are_unique() -> None:
    """A row is run by its name, and its data lies in a folder of that name."""
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_short_table_has_a_row_of_every_group() -> None:
    """Servers, pods, files, floods."""
    groups = {row.name.partition(".")[0] for row in ROWS if row.short}
    assert groups == {row.name.partition(".")[0] for row in ROWS}


def test_a_missed_promise_is_bold_in_the_table() -> None:
    """And the line says which one."""
    outcome = Outcome(row=ROW, missed=["no request hangs (1, at most 0)"])
    assert table([outcome]).splitlines()[-1].endswith("| **no** |")
    assert "missed: no request hangs" in line(outcome)


def _cannot(_: Path) -> None:
    raise CannotRun("needs two machines")


def _is_missing(_: Path) -> None:
    missing("libfaketime", "make tools")


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("TRUE", 1), ("", 0), ("false", 0)])
@pytest.mark.parametrize("valkey", [_cannot, _is_missing])
def test_what_is_not_run_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    ci: str,
    code: int,
    valkey: Callable[[Path], Any],
) -> None:
    """A row whose tools are missing is printed as not run, and the others run; only CI insists on it."""
    rows = [replace(ROW, name=f"test.{n}", setup=replace(ROW.setup, valkey=valkey)) for n in range(2)]
    monkeypatch.setattr(command, "ROWS", tuple(rows))
    monkeypatch.setattr("sys.argv", ["survive", "--folder", str(tmp_path / "data")])
    monkeypatch.setenv("CI", ci)
    assert command.main() == code
    assert capsys.readouterr().out.count("NOT RUN") == len(rows)


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("servers")
async def test_lost_work_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that forgets everything, and a promise that nothing is lost: the row is missed, and says what is lost."""
    monkeypatch.setattr("tests.survive.arena.DRAIN_S", 8.0)
    outcome = await run(replace(ROW, act=_flushed, recover_s=60), tmp_path / "row", rate=30)
    assert not outcome.held
    assert outcome.lost > 0


def test_an_answer_to_another_request_is_noticed() -> None:
    """What belongs to another tenant or request is wrong, whatever it says."""
    load = SteadyLoad(None, 1)  # type: ignore[arg-type]
    ours, theirs = ({"tenant_id": t, "request_id": r} for t, r in (("a", "1"), ("a", "2")))
    for context in (ours, theirs):
        load._read(ours, _reply(context))
    assert len(load.wrong) == 1


def _judged(
    row: Row, *asks: Ask, late_s: float = 0.0, late_answers: tuple[Ask, ...] = (), calm_at: float | None = None
) -> Outcome:
    """A row whose fault lasted from 0 to 10."""
    load = SteadyLoad(None, 1)  # type: ignore[arg-type]
    load.asks, load.late_answers, load.lateness = list(asks), list(late_answers), [(1.0, late_s)]
    outcome = Outcome(row=row)
    judge(row, load, outcome, began=0.0, ended=10.0, calm_at=calm_at)
    return outcome


@pytest.mark.parametrize(
    ("asks", "missed"),
    [
        ((Ask(1.0, 4.0, OK),), "every answer within 1.5 s"),
        ((Ask(1.0, 7.0, HUNG),), "no request hangs"),
        ((Ask(17.0, 17.1, "unavailable"),), "recovered within 5 s"),
        ((Ask(1.0, 1.1, "internal"),), "refused with internal"),
        ((Ask(1.0, 1.1, OK), Ask(2.0, 2.1, "unavailable")), "100% served at once"),
    ],
)
def test_each_bound_is_a_promise(asks: tuple[Ask, ...], missed: str) -> None:
    """What is beyond it is missed, and the line says by how much."""
    row = replace(ROW, served=1.0 if "served" in missed else 0.0)
    assert [m for m in _judged(row, *asks).missed if m.startswith(missed)]
    assert _judged(row, Ask(1.0, 1.1, OK)).missed == []


def test_a_machine_without_cpu_widens_only_bounds_of_time() -> None:
    """Its own timer was half a second late: an answer after 4 s is no miss, a wrong code and a hung request are."""
    slow, served_late = Ask(1.0, 5.0, OK), Ask(13.0, 19.0, "unavailable")
    assert _judged(ROW, slow, served_late, late_s=0.5).missed == []
    missed = _judged(ROW, Ask(1.0, 7.0, HUNG), Ask(1.0, 1.1, "internal"), late_s=0.5).missed
    assert [m[:12] for m in missed] == ["no request h", "refused with"]
    assert "timer was up to 500 ms late" in line(_judged(ROW, slow, late_s=0.5))


def test_time_is_not_judged_where_requests_were_refused_before_the_fault() -> None:
    """The row says so. What hangs, and codes that are not promised, are missed all the same."""
    load = SteadyLoad(None, 1)  # type: ignore[arg-type]
    load.asks = [Ask(1.0, 9.0, OK), Ask(40.0, 41.0, "unavailable"), Ask(1.0, 7.0, HUNG), Ask(1.0, 1.1, "internal")]
    outcome = Outcome(row=ROW, was_calm=False)
    judge(ROW, load, outcome, began=0.0, ended=10.0)
    assert [m[:12] for m in outcome.missed] == ["no request h", "refused with"]
    assert "time is not judged" in line(outcome)


@pytest.mark.parametrize(("late_s", "recovered"), [(0.0, 50.0), (0.02, 50.0), (0.5, 2.0)])
def test_a_deadline_missed_for_want_of_cpu_is_no_late_recovery(late_s: float, recovered: float) -> None:
    """It may come at any time. The fleet has recovered once it was calm; with CPU to spare nothing may come later."""
    outcome = _judged(ROW, Ask(59.0, 60.0, "unavailable"), late_s=late_s, calm_at=12.0)
    assert outcome.recover_s == recovered
    assert [m[:9] for m in outcome.missed] == (["recovered"] if recovered == 50.0 else [])


def test_an_answer_beyond_the_callers_patience_did_not_hang() -> None:
    """It counts as an answer, with the time that it took."""
    asks = Ask(1.0, 7.0, HUNG), Ask(2.0, 8.0, HUNG)
    outcome = _judged(ROW, *asks, late_answers=(Ask(1.0, 9.0, HUNG),))
    assert (outcome.hung, outcome.answers, outcome.worst_s) == (1, 1, 8.0)


def test_what_is_above_a_limit_after_a_fault_is_counted_by_the_callers_time() -> None:
    """Only what was asked and answered within one window counts, so that a slow answer is no false alarm."""
    load = SteadyLoad(None, 1)  # type: ignore[arg-type]
    load.bounded_asks = [Ask(n * 0.1, n * 0.1 + 0.05, OK) for n in range(40)]
    load.bounded_asks += [Ask(0.1, 0.2, "rate_limit_exceeded"), Ask(0.5, 2.6, OK)]
    assert load.most_admitted(0.0) == 20
    assert load.most_admitted(3.0) == 10
    assert load.most_admitted(5.0) == 0
