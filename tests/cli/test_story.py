"""`router explain` in words: whatever a record or an answer may say has words of its own."""

import pytest

from router.cli.shared.story import PINS, REASONS, VERDICTS, print_story
from router.domain.decide.decision import PinState, Reason, Verdict


def test_there_are_words_for_everything() -> None:
    """Every verdict, reason and pin state."""
    assert set(VERDICTS) == {v.label for v in Verdict}
    assert set(REASONS) == {r.label for r in Reason}
    assert set(PINS) == {p.name.lower() for p in PinState}


def test_waits_of_a_record_are_moments(capsys: pytest.CaptureFixture[str]) -> None:
    """In the log a wait began when the record was written; in an answer it begins now."""
    why = {"candidates": [{"provider_id": "a", "verdict": "breaker_open", "fit_in_ms": 2_500}]}
    print_story("then", why, 1_700_000_000_000_000)
    assert "2023-11-14T22:13:22.500Z" in capsys.readouterr().out
    print_story("now", why)
    assert "in 2.5 s" in capsys.readouterr().out


def test_a_providers_own_limit_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """With what it had left."""
    line = {"provider_id": "a", "verdict": "provider_limit", "limits": [{"limit_id": "own", "left_before": 3}]}
    print_story("then", {"candidates": [line]})
    assert "own had 3 left" in capsys.readouterr().out


def test_only_what_is_known_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A record knows less of a limit than an answer: no empty columns."""
    print_story("then", {"limits": [{"limit_id": "few", "left_before": 0}]})
    shown = capsys.readouterr().out
    assert "left before" in shown
    assert "window" not in shown


def test_a_cost_limit_says_its_unit(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside candidates whose cost is in USD."""
    line = {"limit_id": "budget", "scope": "tenant", "resource": "cost", "limit": 5_000_000, "left_before": 4_999_000}
    print_story("now", {"limits": [line]})
    assert "cost, in micro-USD, of the tenant" in " ".join(capsys.readouterr().out.split())


def test_an_extension_that_is_not_well_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """What a dry run knows of it, and what came of it in an answer."""
    known = [{"extension_id": "mask", "status": "unhealthy"}, {"extension_id": "new", "status": None}]
    print_story("now", {"extensions": [*known, {"extension_id": "pii", "outcome": "rejected"}]})
    assert "mask (unhealthy), new, pii (rejected)" in capsys.readouterr().out
