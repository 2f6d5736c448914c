"""Requests and replies of admin acts."""

import pytest

from router.wire.admin import AdminRequest, decode_admin, encode_admin
from router.wire.problems import Rejected


def test_an_admin_act_brings_its_token_in_header_or_body() -> None:
    """The header wins; the token is never among the fields."""
    assert decode_admin(b"", None) == AdminRequest({}, None)
    assert decode_admin(b'{"api_key":"k","a":1}', None) == AdminRequest({"a": 1}, "k")
    assert decode_admin(b'{"api_key":"k"}', {"Authorization": "Bearer t"}) == AdminRequest({}, "t")


@pytest.mark.parametrize("data", [b"[]", b"x", b"\xff", b" " * 70_000])
def test_an_admin_act_must_be_an_object(data: bytes) -> None:
    """Anything else is refused."""
    assert isinstance(decode_admin(data, None), Rejected)


def test_an_admin_answer_is_ok() -> None:
    """ok beside the fields."""
    assert encode_admin({"states": []}) == b'{"ok":true,"states":[]}'
