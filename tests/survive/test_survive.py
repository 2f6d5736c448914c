"""The survival table itself: it notices what is lost, every row leads to the runbook, and what is not run is said."""

import re
from pathlib import Path

import orjson
import pytest
from msgspec.structs import replace

from tests.fleet.foreign import Reply
from tests.survive import __main__ as command
from tests.survive.arena import Arena, run
from tests.survive.load import SteadyLoad
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


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_what_is_not_run_fails_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, code: int) -> None:
    """A row whose tools are missing is printed as not run; only CI insists on it."""

    def cannot(_: Path) -> None:
        raise CannotRun("faketime is not installed")

    setup = replace(ROW.setup, valkey=cannot)
    monkeypatch.setattr(command, "ROWS", (replace(ROW, setup=setup),))
    monkeypatch.setattr("sys.argv", ["survive", "--folder", str(tmp_path / "data")])
    monkeypatch.setenv("CI", ci)
    assert command.main() == code


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
