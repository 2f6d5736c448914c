"""The file of API keys: what is written is read, and every mistake is named."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.api_key import ApiKey, ApiRole, Asker
from router.errors import InvalidInput
from router.wire.api_keys import MAX_KEYS, decode_keys, encode_keys, key_id

HASH = "sha256:" + "ab" * 32
GOOD = {"id": "00112233aabb", "hash": HASH, "principal": "billing", "role": "caller", "tenants": ["acme"]}

_names = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
_askers = st.builds(
    Asker,
    principal=st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=128),
    role=st.sampled_from(ApiRole),
    tenants=st.none() | st.frozensets(_names, min_size=1, max_size=5),
)
_keys = st.lists(
    st.builds(
        ApiKey,
        id=st.from_regex(r"[0-9a-f]{8,32}", fullmatch=True),
        digest=st.binary(min_size=32, max_size=32),
        asker=_askers,
    ),
    max_size=5,
    unique_by=lambda key: key.id,
)


def problems_of(data: bytes) -> list[str]:
    """The paths of what is wrong."""
    with pytest.raises(InvalidInput) as refused:
        decode_keys(data)
    return [problem.path for problem in refused.value.problems]


@given(_keys)
def test_what_is_written_is_read(keys: list[ApiKey]) -> None:
    """Whatever the names."""
    assert decode_keys(encode_keys(keys)) == keys


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"id": "xyz"}, "keys[0].id"),
        ({"id": 5}, "keys[0].id"),
        ({"hash": "ab" * 32}, "keys[0].hash"),
        ({"hash": "sha256:" + "AB" * 32}, "keys[0].hash"),
        ({"principal": ""}, "keys[0].principal"),
        ({"principal": "a\nb"}, "keys[0].principal"),
        ({"role": "root"}, "keys[0].role"),
        ({"role": ["caller"]}, "keys[0].role"),
        ({"tenants": []}, "keys[0].tenants"),
        ({"tenants": "acme"}, "keys[0].tenants"),
        ({"tenants": ["*", "acme"]}, "keys[0].tenants[0]"),
        ({"tenants": [None]}, "keys[0].tenants[0]"),
        ({"tenants": ["a..b"]}, "keys[0].tenants[0]"),
        ({"more": 1}, "keys[0].more"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], path: str) -> None:
    """The entry and its field."""
    assert problems_of(orjson.dumps({"keys": [GOOD | change]})) == [path]


def test_every_mistake_is_named_at_once() -> None:
    """Of several entries, too."""
    paths = problems_of(orjson.dumps({"keys": [GOOD | {"role": "x", "id": "y"}, 5, GOOD | {"hash": None}]}))
    assert paths == ["keys[0].id", "keys[0].role", "keys[1]", "keys[2].hash"]


def test_one_id_cannot_be_two_keys() -> None:
    """The second would be without effect."""
    assert problems_of(orjson.dumps({"keys": [GOOD, GOOD]})) == ["keys[1].id"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"keys":{}}', b'{"keys":[],"more":1}', b"\xff"])
def test_half_a_file_is_refused_as_a_whole(data: bytes) -> None:
    """Never as a file without keys."""
    assert problems_of(data) == [""]


def test_the_number_of_keys_is_bounded() -> None:
    """A file of millions would stop the pod."""
    assert problems_of(orjson.dumps({"keys": [GOOD] * (MAX_KEYS + 1)})) == ["keys"]


@pytest.mark.parametrize(
    "text", ["", "rk_", "rk_00112233", "rk_xx_" + "a" * 43, "RK_00112233_" + "a" * 43, "rk_00112233_short"]
)
def test_what_is_no_key_has_no_id(text: str) -> None:
    """It is looked up nowhere."""
    assert key_id(text) is None


def test_a_secret_may_have_underscores() -> None:
    """The id ends at the second one."""
    assert key_id("rk_00112233_" + "a_b-" * 10) == "00112233"
