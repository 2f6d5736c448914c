"""`router gate`: the file as a pod would read it."""

import json
from pathlib import Path

import pytest

from router.cli.shared.exits import Exit
from tests.cli.conftest import Run

GOOD = '{"current_cp":"CP2-LC","updated_at":"2026-01-02T03:04:05Z"}'


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (GOOD, Exit.OK, None),
        ('{"current_cp":"CP1-LC"}', Exit.NEGATIVE, "older"),
        (GOOD[:20], Exit.NEGATIVE, "malformed"),
        (None, Exit.NEGATIVE, "missing"),
    ],
)
def test_the_verdict_and_its_exit_code(run: Run, content: str | None, code: Exit, reason: str | None) -> None:
    """0 only for an open gate; the reason is the one that is counted, and every gated feature is told."""
    if content is not None:
        Path("state.json").write_text(content)
    ran = run("gate", "--file", "state.json", "--json")
    facts = json.loads(ran.out)
    assert (ran.code, facts["reason"], facts["open"]) == (code, reason, reason is None)
    assert facts["features"]["pins"] is (reason is None)
    assert facts["pods"] == []


def test_the_table_says_what_is_off_and_what_would_open_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ROUTER_CP_STATE_PATH, as a pod takes it."""
    Path("mounted.json").write_text('{"current_cp":"CP1-LC"}')
    monkeypatch.setenv("ROUTER_CP_STATE_PATH", "mounted.json")
    out = run("gate").out
    assert "closed (older): CP1 baseline; features need CP2-LC" in out
    assert "sticky sessions" in out
    assert "weighted routing" in out


def test_without_a_file_it_says_so(run: Run) -> None:
    """No path is set and no local fleet is here."""
    ran = run("gate")
    assert ran.code == Exit.NEGATIVE
    assert "ROUTER_CP_STATE_PATH is not set" in ran.out


def test_the_local_fleets_file_is_named_when_it_is_gone(run: Run) -> None:
    """Its pods look for it there, so that is where it is missing."""
    Path(".local").mkdir()
    ran = run("gate", "--json")
    assert (ran.code, json.loads(ran.out)["file"]) == (Exit.NEGATIVE, ".local/cp_state.json")


def test_a_pod_that_does_not_answer(run: Run) -> None:
    """A server that cannot be reached, with the address."""
    ran = run("gate", "--pod", "http://127.0.0.1:1")
    assert ran.code == Exit.UNREACHABLE
    assert "http://127.0.0.1:1 does not answer" in ran.err


class Pods:
    """Answers /readyz as pods do, each with a gate of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gates: dict[str, dict[str, object]] = {}
        monkeypatch.setattr("router.cli.gate._asked", lambda url: {"pod": url, **self.gates[url]})

    def add(self, name: str, cp: str | None, reason: str | None = None) -> tuple[str, str]:
        """One pod: the option that names it."""
        detail = f"current_cp is {cp}"
        self.gates[name] = {
            "open": reason is None,
            "current_cp": cp,
            "since_ms": 0,
            "reason": reason,
            "detail": detail,
            "doubt": None,
        }
        return "--pod", name


@pytest.mark.parametrize(
    ("gates", "code", "reason"),
    [
        ([("CP2-LC", None)], Exit.OK, None),
        ([("CP2-LC", None), ("CP3-LC", None)], Exit.OK, None),
        ([("CP2-LC", None), ("CP1-LC", "older")], Exit.NEGATIVE, "older"),
        ([(None, "missing")], Exit.NEGATIVE, "missing"),
    ],
)
def test_without_a_file_the_pods_give_the_verdict(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    gates: list[tuple[str | None, str | None]],
    code: Exit,
    reason: str | None,
) -> None:
    """A shell without ROUTER_CP_STATE_PATH asks pods from afar: that it has no file says nothing about them."""
    pods = Pods(monkeypatch)
    options = [word for n, (cp, why) in enumerate(gates) for word in pods.add(f"http://pod-{n}", cp, why)]
    ran = run("gate", "--json", *options)
    facts = json.loads(ran.out)
    assert (ran.code, facts["open"], facts["reason"], facts["file"]) == (code, code == Exit.OK, reason, None)
    assert set(facts["features"].values()) == {code == Exit.OK}
    assert "as the pods say" in run("gate", *options).out


def test_a_file_that_is_named_counts_beside_the_pods(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are asked for, so both must be open."""
    option = Pods(monkeypatch).add("http://pod", "CP2-LC")
    assert run("gate", "--file", "nowhere.json", *option).code == Exit.NEGATIVE
    Path("state.json").write_text(GOOD)
    assert run("gate", "--file", "state.json", *option).code == Exit.OK
