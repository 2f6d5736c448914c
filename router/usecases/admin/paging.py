"""One page of a list in an admin reply: the reply must fit into a message, however long the list is.

A place is a text that says where an item is; pages go by its order, so an item that comes or goes moves no other.
"""

from collections.abc import Iterable
from typing import TypeVar

from router.domain.json import JsonObject
from router.errors import InvalidInput, Problem

MAXIMUM = 1_000
T = TypeVar("T")


def page(items: Iterable[tuple[str, T]], fields: JsonObject) -> tuple[list[T], JsonObject]:
    """At most `fields.limit` of the items (place, item) after `fields.cursor`, and what the reply says of the rest:
    `cursor` when there is one.

    :raises InvalidInput: a limit outside 1..1,000, or a cursor that is no text.
    """
    cursor, limit = _asked(fields)
    left = sorted(((place, item) for place, item in items if place > cursor), key=lambda placed: placed[0])
    found = left[:limit]
    more: JsonObject = {"cursor": found[-1][0]} if len(left) > limit else {}
    return [item for _, item in found], more


def _asked(fields: JsonObject) -> tuple[str, int]:
    cursor, limit = fields.get("cursor"), fields.get("limit")
    problems: list[Problem] = []
    if cursor is not None and not isinstance(cursor, str):
        problems.append(Problem("cursor", "is not a string", "take it from the page before"))
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAXIMUM):
        problems.append(
            Problem("limit", f"is not a number from 1 to {MAXIMUM:,}", "ask for the next page by its cursor")
        )
    if problems:
        raise InvalidInput(problems)
    return cursor if isinstance(cursor, str) else "", limit if isinstance(limit, int) else MAXIMUM
