"""Reads a reply that lists fields and values, whichever server gave it."""

from collections.abc import Iterable
from typing import Any


def field_pairs(reply: Any) -> Iterable[tuple[Any, Any]]:
    """Return field and value, in order: redis-py makes a dictionary of some replies; others stay a flat list.

    :raises ValueError: a field has no value.
    """
    if isinstance(reply, dict):
        return reply.items()
    return zip(reply[::2], reply[1::2], strict=True)
