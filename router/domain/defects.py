"""Defects of a message that do not cost the message: what was wrong, and what was read instead."""

from enum import StrEnum
from typing import NamedTuple


class Defect(StrEnum):
    """The kind of a defect; a label of `router_input_defects_total`."""

    BYTE_ORDER_MARK = "byte_order_mark"
    """The body begins with a byte order mark."""
    HALF_CHARACTER = "half_character"
    """An escape such as `\\ud83d` without its other half; it is read as U+FFFD."""
    NOT_UTF8 = "not_utf8"
    """Bytes that are not UTF-8; they are read as U+FFFD."""
    NOT_FINITE = "not_finite"
    """NaN, Infinity, or a number too large for a double; it is read as null."""
    CONTROL_CHARACTER = "control_character"
    """A control character, such as a line break, that JSON wants escaped."""
    OTHER_FORM = "other_form"
    """Another type or spelling of the right value, such as a number as text."""
    CONTRADICTION = "contradiction"
    """Two fields that contradict each other, such as a total that is not the sum."""
    NO_SESSION = "no_session"
    """A session that is blank, or the text of a missing value such as null, under a policy with sticky sessions."""
    FIELD_DROPPED = "field_dropped"
    """A field with an unusable value that nothing depends on."""
    HEADER_DROPPED = "header_dropped"
    """A header that is not UTF-8, or has an unusable value that nothing depends on."""


class InputWarning(NamedTuple):
    """One defect of a message. `text` names the field, what is wrong and what was read; it never repeats the value."""

    defect: Defect
    text: str


# The features of an audit record are at most 64 KiB, and a character takes up to 4 bytes.
_MAX_NOTE_CHARS = 8_192

Warnings = tuple[InputWarning, ...]


def note_of(*parts: str | None, warnings: Warnings = ()) -> str | None:
    """Join the parts of an audit note and the texts of the warnings, at most 8,192 characters; None: there are none."""
    note = "; ".join([*(p for p in parts if p is not None), *(w.text for w in warnings)])
    return note[:_MAX_NOTE_CHARS] or None
