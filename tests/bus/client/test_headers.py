"""Header blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bus.client import headers

NAMES = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True)
VALUES = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), max_size=30)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_what_is_encoded_decodes_alike(mapping: dict[str, str]) -> None:
    """decode(encode(x)) == x for every header without outer space and controls."""
    assert headers.decode(headers.encode(mapping)) == mapping


@given(st.text(max_size=40))
def test_a_value_cannot_add_a_header(value: str) -> None:
    """Whatever the value, one header goes in and one comes out."""
    text = value.encode(errors="replace").decode()
    assert list(headers.decode(headers.encode({"name": text}))) == ["name"]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ä"])
def test_a_name_must_be_a_token(name: str) -> None:
    """A name that could end the line is refused."""
    with pytest.raises(ValueError, match="not a header name"):
        headers.encode({name: "x"})


def test_the_inline_status() -> None:
    """The server's `503` and `409 Consumer Deleted` are read; a plain block has no status."""
    assert headers.status(b"NATS/1.0 503\r\n\r\n") == (503, "")
    assert headers.status(b"NATS/1.0 409 Consumer Deleted\r\nNats-Pending-Messages: 3\r\n\r\n") == (
        409,
        "Consumer Deleted",
    )
    assert headers.status(b"NATS/1.0\r\na: b\r\n\r\n") == (0, "")


@given(st.binary(max_size=60))
def test_decoding_never_raises(noise: bytes) -> None:
    """A client can send anything."""
    headers.decode(b"NATS/1.0" + noise)
