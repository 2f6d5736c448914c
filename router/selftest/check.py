"""The result of one check."""

from enum import StrEnum

from msgspec import Struct


class Verdict(StrEnum):
    """`NOT_CHECKED` is not a failure: the options or the fleet do not allow the check."""

    OK = "ok"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


class Check(Struct, frozen=True):
    """One line of the report: the check, its verdict, and what was seen, in a sentence."""

    name: str
    verdict: Verdict
    seen: str


class NotSeen(Exception):
    """A check failed; the message says what was seen instead."""


class NotChecked(Exception):
    """A check is not possible here; the message says why."""
