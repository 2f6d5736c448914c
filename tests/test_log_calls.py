"""Log calls: each text has a place for every value."""

from pathlib import Path

import pytest

from tests.log_calls import wrong

ROOT = Path(__file__).parents[1]


def test_every_log_line_can_be_written() -> None:
    """Text and value exchanged, or a value too many, would cost the line when it is needed."""
    found = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in sorted((ROOT / "router").rglob("*.py"))
        for fault in wrong(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "log.error('store unavailable: %s', why)",
        "log.info('pod %s of version %s starts', name, version, extra={'event': 1})",
        "log.warning('%5.1f s, %d%% of %r', late, share, name)",
        "log.info('the primary is now %s:%d', *found)",
        "log.error(message, extra={'event': 1})",
        "log.error(str(fault))",
        "TEXT = 'no stream covers %s'\nlog.warning(TEXT, subject)",
        "def f():\n    text = '%s (%d more)'\n    log.warning(text, name, more)",
        "ROW = Kind(1, '%d wrong keys')\nlog.warning(ROW.text, count)",
        "other.error(a, b)",
    ],
)
def test_what_can_be_written_passes(source: str) -> None:
    """Also without values, and with a text that has a name."""
    assert list(wrong(source)) == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("log.error(why, 'store unavailable: %s')", "line 1: the text is no literal: why"),
        ("log.warning(subject, TEXT)\nTEXT = '%s'", "line 1: the text is no literal: subject"),
        ("ROW = Kind(1, '%s: %d')\nlog.warning(count, ROW.text)", "line 2: the text is no literal: count"),
        ("ROW = Kind(1, '%s: %d')\nlog.warning(ROW.text, count)", "line 2: 1 values for '%s: %d'"),
        ("\nlog.exception(str(fault), '%s')", "line 2: the text is no literal: str(fault)"),
        ("log.info('pod starts', name)", "line 1: 1 values for 'pod starts'"),
        ("log.info('%s and %s', name)", "line 1: 1 values for '%s and %s'"),
        ("log.info('100%% of %s', name, share)", "line 1: 2 values for '100%% of %s'"),
    ],
)
def test_what_would_be_lost_is_named(source: str, says: str) -> None:
    """With its line."""
    assert list(wrong(source)) == [says]
