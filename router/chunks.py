"""Cuts lists into chunks, so that one call stays small and others run between the calls."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def chunks(items: Sequence[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield the items in their order, at most `size` at a time."""
    at = 0
    while at < len(items):
        yield list(items[at : at + size])
        at += size
