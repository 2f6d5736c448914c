"""Puts what a bench prints into docs/PERFORMANCE.md, between the marks of its section."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "PERFORMANCE.md"


class SectionMissing(Exception):
    """The document lacks the marks of a section."""


def replaced(document: str, section: str, text: str) -> str:
    """The document with `text` as the section's.

    :raises SectionMissing: one of its two marks is missing.
    """
    begin, end = f"<!-- {section}: written by the bench -->\n", f"<!-- end of {section} -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SectionMissing(f"{DOCUMENT.name} has no marks for the section {section!r}")
    return f"{before}{begin}\n{text.strip()}\n\n{end}{after}"


def write(section: str, text: str) -> None:
    """Replace a section of the document."""
    DOCUMENT.write_text(replaced(DOCUMENT.read_text(encoding="utf-8"), section, text), encoding="utf-8")


def stamp(command: str) -> str:
    """When, by which command and where it was measured."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    return f"`{command}` on {today}, {os.cpu_count()} cores, Python {platform.python_version()}."
