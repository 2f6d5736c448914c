"""Chunks: all items, in order, none twice."""

import pytest

from router.chunks import chunks


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (5, 2, [[0, 1], [2, 3], [4]]),
        (4, 2, [[0, 1], [2, 3]]),
        (1, 3, [[0]]),
        (3, 3, [[0, 1, 2]]),
        (3, 1, [[0], [1], [2]]),
        (0, 4, []),
    ],
)
def test_chunks_hold_every_item_once(count: int, size: int, expected: list[list[int]]) -> None:
    """The last chunk may be shorter; no items make no chunk."""
    assert list(chunks(range(count), size)) == expected
