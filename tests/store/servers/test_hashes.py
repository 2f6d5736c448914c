"""Replies that list fields and values."""

import pytest

from router.store.servers.hashes import field_pairs


@pytest.mark.parametrize("reply", [[b"a", 1, b"b", 2], {b"a": 1, b"b": 2}, (b"a", 1, b"b", 2)])
def test_fields_and_values_come_in_pairs(reply: object) -> None:
    """The shape of the reply does not matter."""
    assert list(field_pairs(reply)) == [(b"a", 1), (b"b", 2)]


@pytest.mark.parametrize("reply", [[], {}])
def test_an_empty_reply_has_no_pairs(reply: object) -> None:
    """A key that does not exist is read as empty."""
    assert list(field_pairs(reply)) == []


@pytest.mark.parametrize("reply", [[b"a"], [b"a", 1, b"b"]])
def test_a_field_without_a_value_is_refused(reply: object) -> None:
    """It is never dropped."""
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        list(field_pairs(reply))
