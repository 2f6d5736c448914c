"""The general client and reads of many keys: one suite for the fake and for the server, so that the fake is true."""

import pytest

from router.domain.tasks.task import Unreadable
from router.errors import StoreDamaged, StoreError
from router.store.claims import RedisClaims
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.store.servers.reads import read_each


async def test_replies_come_in_the_order_of_the_commands(plain: SingleNode, keys: Keys) -> None:
    """A missing key is None."""
    await plain.call("SET", f"{keys.schema}:1", b"\x00one")
    await plain.call("SET", f"{keys.schema}:3", "three")
    found = await plain.gather([("GET", f"{keys.schema}:{n}") for n in (3, 2, 1)])
    assert found == [b"three", None, b"\x00one"]
    assert await plain.gather([]) == []


async def test_a_wrong_type_is_damage(plain: SingleNode, keys: Keys) -> None:
    """Of one command and of a batch."""
    await plain.call("HSET", f"{keys.schema}:h", "field", "value")
    with pytest.raises(StoreDamaged, match="Redis refused GET: WRONGTYPE"):
        await plain.call("GET", f"{keys.schema}:h")
    with pytest.raises(StoreDamaged):
        await plain.gather([("GET", f"{keys.schema}:h")])


async def test_another_refusal_is_no_damage(plain: SingleNode, keys: Keys) -> None:
    """A command with wrong arguments is a fault of ours."""
    with pytest.raises(StoreError) as refused:
        await plain.call("SET", f"{keys.schema}:x")
    assert not isinstance(refused.value, StoreDamaged)


async def test_a_damaged_key_spoils_no_other_read(plain: SingleNode, keys: Keys) -> None:
    """It alone is unreadable, and says why."""
    await plain.call("SET", f"{keys.schema}:1", "one")
    await plain.call("HSET", f"{keys.schema}:2", "field", "value")
    found = await read_each(plain, [("GET", f"{keys.schema}:{n}") for n in (1, 2, 3)])
    assert (found[0], found[2]) == (b"one", None)
    assert isinstance(found[1], Unreadable)


async def test_a_scan_finds_each_key_of_its_pattern(plain: SingleNode, keys: Keys) -> None:
    """At most as many as are asked for; in pages all of them."""
    wanted = {f"{keys.schema}:{n}".encode() for n in range(30)}
    await plain.gather([("SET", key, 1) for key in wanted])
    await plain.call("SET", f"tx{keys.schema}:1", 1)
    assert len(await plain.scan(f"{keys.schema}:*", 10, 20)) == 20
    assert set(await plain.scan(f"{keys.schema}:*", 10, 100)) == wanted
    pages = [page async for page in plain.pages(f"{keys.schema}:*".encode(), 10)]
    assert {key for page in pages for key in page} == wanted


async def test_a_claim_is_one_pods(plain: SingleNode, keys: Keys) -> None:
    """A second one waits until the first has run out."""
    claims = RedisClaims(keys, plain)
    assert await claims.take("t", b"n" * 10, claim=b"claim-1", claim_ms=60_000)
    assert not await claims.take("t", b"n" * 10, claim=b"claim-2", claim_ms=60_000)
    assert await claims.take("t", b"m" * 10, claim=b"claim-2", claim_ms=60_000)
    key = keys.tenant("t").claim(b"n" * 10)
    assert await plain.call("GET", key) == b"claim-1"
    assert 0 < await plain.call("PTTL", key) <= 60_000
