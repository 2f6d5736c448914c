"""One page of a list in an admin reply, so that a reply of any list fits into one message.

Each item has a sort key. A page follows the key of the last item before it, so added or removed items move no other.
"""

from collections.abc import Iterable
from typing import TypeVar

from router.domain.json import JsonObject
from router.errors import InvalidInput, Problem

MAXIMUM = 1_000
T = TypeVar("T")


def page(items: Iterable[tuple[str, T]], fields: JsonObject) -> tuple[list[T], JsonObject]:
    """At most `fields.limit` of the (key, item) pairs after `fields.cursor`, and the reply's paging fields.

    The paging fields hold `cursor` if there is a next page, else nothing.

    :raises InvalidInput: the limit is outside 1..1,000, or the cursor is no string.
    """
    cursor, limit = _cursor_and_limit(fields)
    remaining = sorted(((key, item) for key, item in items if key > cursor), key=lambda pair: pair[0])
    shown = remaining[:limit]
    paging: JsonObject = {"cursor": shown[-1][0]} if len(remaining) > limit else {}
    return [item for _, item in shown], paging


def _cursor_and_limit(fields: JsonObject) -> tuple[str, int]:
    cursor, limit = fields.get("cursor"), fields.get("limit")
    problems: list[Problem] = []
    if cursor is not None and not isinstance(cursor, str):
        problems.append(Problem("cursor", "is not a string", "take it from the previous page"))
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAXIMUM):
        problems.append(
            Problem("limit", f"is not a number from 1 to {MAXIMUM:,}", "ask for the next page by its cursor")
        )
    if problems:
        raise InvalidInput(problems)
    return cursor if isinstance(cursor, str) else "", limit if isinstance(limit, int) else MAXIMUM
