"""One page of a list in an admin reply, so that a reply of any list fits into one message.

Each item has a sort key. A page follows the key of the last item before it, so added or removed items move no other.
"""

from collections.abc import Iterable
from typing import TypeVar

from router.domain.json import JsonObject

T = TypeVar("T")


def page(items: Iterable[tuple[str, T]], cursor: str, limit: int) -> tuple[list[T], JsonObject]:
    """At most `limit` of the (key, item) pairs after `cursor`, and the reply's paging fields.

    The paging fields hold `cursor` if there is a next page, else nothing.
    """
    remaining = sorted(((key, item) for key, item in items if key > cursor), key=lambda pair: pair[0])
    shown = remaining[:limit]
    paging: JsonObject = {"cursor": shown[-1][0]} if len(remaining) > limit else {}
    return [item for _, item in shown], paging
