"""What a state file says."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.gate import ALL_FEATURES, BASELINE, Checkpoint, Fault, Unusable, fault_of, features_of, parse


def state(current_cp: object, **more: object) -> bytes:
    """A state file as its writer makes it, but for what is named."""
    return orjson.dumps({"project": "p", "version": 3, "current_cp": current_cp, "agents": [], **more})


@pytest.mark.parametrize("cp", ["CP2-LC", "CP3-LC", "CP10-LC", "CP02-LC"])
def test_cp2_and_later_allow_everything(cp: str) -> None:
    """By number, not by text: CP10 is later than CP2. It is ALL_FEATURES itself: the plan has a short cut for it."""
    assert features_of(parse(state(cp))) is ALL_FEATURES


@pytest.mark.parametrize("cp", ["CP0-LC", "CP1-LC"])
def test_an_older_checkpoint_is_the_baseline(cp: str) -> None:
    """The file is fine; the gate is closed."""
    parsed = parse(state(cp))
    assert fault_of(parsed) is Fault.OLDER
    assert features_of(parsed) is BASELINE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"current_cp":"CP2-LC"',
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        state(None),
        state(2),
        state("cp2-lc"),
        state("CP2"),
        state("CP2-LC "),
        state("CP2-LC\n"),
        state("CP٢-LC"),
        state("CP" + "9" * 5000 + "-LC"),
        b" " * (1 << 20) + state("CP2-LC"),
        b"[" * 100_000,
    ],
)
def test_what_is_no_state_is_malformed(content: bytes) -> None:
    """None of these opens the gate."""
    parsed = parse(content)
    assert isinstance(parsed, Unusable)
    assert parsed.fault is Fault.MALFORMED
    assert parsed.detail


@given(st.binary())
def test_no_bytes_break_the_parser(content: bytes) -> None:
    """A checkpoint or a reason, never an exception."""
    assert isinstance(parse(content), Checkpoint | Unusable)


@pytest.mark.parametrize(
    ("updated_at", "expected"),
    [
        ("2025-01-02T03:04:05Z", 1_735_787_045_000),
        ("2025-01-02T04:04:05.250+01:00", 1_735_787_045_250),
        ("2025-01-02T03:04:05", None),
        ("yesterday", None),
        (1735787045, None),
        (None, None),
    ],
)
def test_the_age_is_known_only_from_a_full_timestamp(updated_at: object, expected: int | None) -> None:
    """One that cannot be read does not close the gate."""
    parsed = parse(state("CP2-LC", updated_at=updated_at))
    assert isinstance(parsed, Checkpoint)
    assert parsed.updated_at_ms == expected


def test_the_last_of_duplicate_keys_counts() -> None:
    """As everywhere."""
    assert fault_of(parse(b'{"current_cp":"CP2-LC","current_cp":"CP1-LC"}')) is Fault.OLDER
