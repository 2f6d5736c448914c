"""What one check came to."""

from enum import StrEnum

from msgspec import Struct


class Verdict(StrEnum):
    """`NOT_CHECKED` is no failure: what was asked for does not let it be seen."""

    OK = "ok"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


class Check(Struct, frozen=True):
    """One line of the report: what was looked at, and what was seen, in a sentence."""

    name: str
    verdict: Verdict
    seen: str


class NotSeen(Exception):
    """A check did not find what has to be; the message says what there was instead."""


class NotChecked(Exception):
    """A check cannot be made here; the message says why."""
