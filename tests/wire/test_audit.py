"""Audit records as text."""

import pytest

from router.wire.audit import rfc3339_us


@pytest.mark.parametrize(
    ("ts_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_999, "1970-01-01T00:00:00.001Z"),
        (1_767_225_599_999_000, "2025-12-31T23:59:59.999Z"),
        (1_772_323_200_000_000, "2026-03-01T00:00:00.000Z"),
    ],
)
def test_a_moment_is_rfc_3339_in_utc(ts_us: int, text: str) -> None:
    """Milliseconds, rounded down, and Z for UTC."""
    assert rfc3339_us(ts_us) == text
