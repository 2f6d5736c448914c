"""The scenario beside peers, with this router only, and what is made of its outcome."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from bench.document import sections
from bench.peers.clients import closed_loop
from bench.peers.install import NotInstalled, version
from bench.peers.right import compare
from bench.peers.right.ours import Pods
from bench.peers.right.scenario import Ask, NotAnswered, Scenario, Size, Verdict, judge
from bench.peers.speed import CONTESTANTS, Row, table
from bench.processes import Placement

SIZE = Size(200)


async def test_two_pods_bound_and_bill_exactly_through_a_kill_and_a_frozen_redis(servers: None, tmp_path: Path) -> None:
    """Nothing above the limit or the budget, each success billed once although reported twice, everybody answered."""
    async with Pods(tmp_path, Placement("any", "any"), SIZE, ack_wait_s=2) as pods:
        verdict = await Scenario(pods, SIZE).run()
    assert verdict == Verdict(
        admitted=SIZE.limit,
        admitted_above=0,
        spent_cents=SIZE.budget_cents,
        spent_above_cents=0,
        unanswered=0,
        billed_twice=0,
        not_billed=0,
    )
    assert verdict.right


class Wrong:
    """A contender that admits everything, bills some requests twice and others never, and loses its instance 0."""

    bills = True

    def __init__(self) -> None:
        self.events: list[str] = []
        self._killed = False
        self._bills: Counter[str] = Counter()

    async def ask(self, ask: Ask, instance: int) -> str | None:
        if self._killed and instance == 0:
            raise NotAnswered(ask.name)
        self._bills[ask.name] = ask.number % 3
        return ask.name

    async def report(self, ask: Ask, token: str) -> None:
        assert token == ask.name
        self.events.append("report")

    async def billed(self, admitted: set[str]) -> Counter[str]:
        return +self._bills

    def freeze(self) -> None:
        self.events.append("freeze")

    def thaw(self) -> None:
        self.events.append("thaw")

    def kill(self) -> None:
        self._killed = True
        self.events.append("kill")


async def test_the_scenario_finds_what_is_wrong() -> None:
    """Every figure counts: admissions and money above the bounds, bills that came twice and bills that never came."""
    size = Size(60)
    contender = Wrong()
    verdict = await Scenario(contender, size).run()
    assert [e for e in contender.events if e != "report"] == ["freeze", "kill", "thaw"]
    assert contender.events.count("report") == 2 * size.requests
    assert verdict == Verdict(
        admitted=30,
        admitted_above=24,
        spent_cents=60,
        spent_above_cents=54,
        unanswered=0,
        billed_twice=20,
        not_billed=20,
    )
    assert not verdict.right


async def test_who_is_never_answered_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a caller's patience ends."""
    monkeypatch.setattr("bench.peers.right.scenario._PATIENCE_S", 0.0)
    monkeypatch.setattr("bench.peers.right.scenario._BEFORE_S", 0.0)

    class Silent(Wrong):
        bills = False

        async def ask(self, ask: Ask, instance: int) -> str | None:
            await asyncio.sleep(0.01)
            raise NotAnswered(ask.name)

    verdict = await Scenario(Silent(), Size(20)).run()
    assert (verdict.unanswered, verdict.billed_twice, verdict.right) == (20, None, False)


@pytest.mark.parametrize(
    ("admitted", "bills", "above", "spent"),
    [
        (["limited-1"], None, 0, 0),
        ([f"limited-{n}" for n in range(12)], None, 2, 0),
        ([f"budgeted-{n}" for n in range(5)], None, 0, 0),
        ([f"budgeted-{n}" for n in range(6)], None, 0, 2),
        (["budgeted-1"], {"budgeted-1": 7}, 0, 4),
        (["limited-1"], {"limited-1": 40}, 0, 0),
        (["limited-1"], {f"limited-{n}": 1 for n in range(13)}, 3, 0),
    ],
    ids=[
        "one",
        "above the limit",
        "whole budget",
        "above the budget",
        "billed above it",
        "limit's bills",
        "unanswered",
    ],
)
def test_the_bounds_are_judged_each_by_its_own_tenant(
    admitted: list[str], bills: dict[str, int] | None, above: int, spent: int
) -> None:
    """Who bills has spent what it billed, else what it admitted."""
    verdict = judge(set(admitted), None if bills is None else Counter(bills), Size(100), 0)
    assert (verdict.admitted_above, verdict.spent_above_cents) == (above, spent)


def test_peers_that_cannot_be_installed_are_rows(tmp_path: Path) -> None:
    """They say why, in both tables, and what they would have been."""
    missing = NotInstalled("no network")
    row = compare.run("limits", missing, tmp_path / "limits", SIZE)
    assert "not run: no network" in compare.table([row], SIZE)
    found = table([Row(c, not_run="no network") for c in CONTESTANTS])
    assert found.count("not run: no network") == len(CONTESTANTS)
    columns = {line.count("|") for line in found.splitlines()}
    assert len(columns) == 1


@pytest.mark.parametrize("name", ["limits", "throttled-py", "litellm", "redis"])
def test_every_peer_has_a_pinned_version(name: str) -> None:
    """So that two runs compare with the same ones."""
    assert version(name)[0].isdigit()


def test_a_section_is_replaced_between_its_marks() -> None:
    """The rest of the document stays; a section without marks is an error that names it."""
    document = "a\n<!-- x: written by the bench -->\nold\n<!-- end of x -->\nb <!-- end of y -->\n"
    assert sections.replaced(document, "x", "new\n") == (
        "a\n<!-- x: written by the bench -->\n\nnew\n\n<!-- end of x -->\nb <!-- end of y -->\n"
    )
    for section in ("y", "z"):
        with pytest.raises(sections.SectionMissing, match=section):
            sections.replaced(document, section, "new")


async def test_an_operation_that_never_waits_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """The window opens and closes in time although no caller gives the event loop away; errors go under their names."""

    async def operation(number: int) -> str:
        if number % 3 == 0:
            raise LookupError
        return "ok" if number % 3 == 1 else "refused"

    for measure_s in (0.2, 2.0, 20.0):  # a machine without CPU to spare may not run within a short window
        await closed_loop.run(operation, 3, 0.05, measure_s)
        start, end, report = capsys.readouterr().out.splitlines()
        found = json.loads(report)
        if found["ok"] and len(found["errors"]) > 1:
            break
    assert (start, end) == ("START", "END")
    assert set(found["errors"]) == {"LookupError", "refused"}
    assert found["ok"] + sum(found["errors"].values()) == found["answered"]
    assert found["ok"] > 0
    assert found["generator_cpu_s"] > 0
