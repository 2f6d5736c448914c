"""Random values for packers; all follow from the random source."""

import random

_NUMBERS = (0, 1, 127, 128, 255, 256, 16_383, 16_384, 2**31, 2**32 - 1, 2**40, 2**53)
_LETTERS = 'abcXYZ09-_.~ äß中🙂"\\\n'


def number(r: random.Random, maximum: int = 2**53) -> int:
    """A whole number, often at the edge of a width."""
    return r.choice([n for n in _NUMBERS if n <= maximum]) if r.random() < 0.5 else int(r.random() * (maximum + 1))


def text(r: random.Random, maximum: int = 40) -> str:
    """A text with letters that need care."""
    return "".join(r.choices(_LETTERS, k=int(r.random() * (maximum + 1))))


def name(r: random.Random) -> str:
    """A name of a tenant, policy or provider."""
    return "".join(r.choices("abcXYZ09-_.", k=1 + int(r.random() * r.choice((1, 8, 230)))))


def maybe(r: random.Random) -> str | None:
    """A text, or none."""
    return text(r) if r.random() < 0.5 else None
