"""What a soak calls flat, and that it measures a real fleet."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.__main__ import Soak
from tests.soak.slopes import Series, table


def series(values: list[float], allowed: float = 5.0) -> Series:
    """One a second."""
    return Series("memory", [float(t) for t in range(len(values))], values, allowed)


def test_a_leak_is_not_flat() -> None:
    """Small steps, each within the noise, add up."""
    assert not series([100 + 0.2 * n + (n % 3) for n in range(60)]).flat


def test_one_odd_sample_is_no_leak() -> None:
    """The last sample meets a burst."""
    assert series([*([100.0] * 40), 400.0]).flat


def test_what_shrinks_is_flat() -> None:
    """Caches that empty are no leak."""
    assert series([200.0 - n for n in range(50)]).flat


@given(st.floats(-1e6, 1e6), st.floats(-100, 100), st.integers(2, 30))
def test_the_growth_of_a_line_is_its_rise(start: float, step: float, count: int) -> None:
    """From the first sample to the last."""
    made = series([start + step * n for n in range(count)])
    assert made.growth == pytest.approx(step * (count - 1), abs=1e-3)


def test_the_table_names_what_is_steep() -> None:
    """In bold."""
    assert "**no**" in table([series([0.0, 100.0])])
    assert "**no**" not in table([series([0.0, 1.0])])


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("servers")
async def test_a_short_soak_measures_pods_keys_and_latency(tmp_path: Path) -> None:
    """Every kind of series is there with real figures; a few seconds say nothing about slopes."""
    soak = Soak(tmp_path / "soak", seconds=6, warm_up_s=2, every_s=2, rate=20)
    found = {s.name: s for s in await soak.run()}
    assert {"pod-1: memory MB", "pod-2: open files", "pod-1: tasks", "p99 ms", "keys idem a decision"} <= found.keys()
    assert all(s.values[-1] > 0 for name, s in found.items() if name.startswith(("pod-", "p99")))
