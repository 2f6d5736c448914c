"""Whether keys exist: one round trip for all that ask at a moment."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from router.errors import StoreUnavailable
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.store.tenants.presence import Presence


class Counting:
    """Counts round trips; `away`: it does not answer."""

    def __init__(self, nodes: SingleNode) -> None:
        self._nodes = nodes
        self.trips: list[int] = []
        self.away = False

    async def gather(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Nodes.gather`."""
        self.trips.append(len(commands))
        if self.away:
            raise StoreUnavailable("away")
        return await self._nodes.gather(commands)


@pytest.fixture
def counting(plain: SingleNode) -> Counting:
    """On the fake, and on a server."""
    return Counting(plain)


async def test_a_thousand_askers_are_few_round_trips(plain: SingleNode, counting: Counting, keys: Keys) -> None:
    """Each gets the answer for its key; equal keys are asked for once."""
    presence = Presence(counting)  # type: ignore[arg-type]
    there = {n for n in range(1000) if n % 7 == 0}
    names = [keys.tenant(f"t{n}").policies for n in range(1000)]
    for n in there:
        await plain.call("HSET", names[n], "a", 1)
    found = await asyncio.gather(*(presence.has(name) for name in [*names, *names]))
    assert [n for n, has in enumerate(found[:1000]) if has] == sorted(there)
    assert found[:1000] == found[1000:]
    assert len(counting.trips) <= 2
    assert sum(counting.trips) <= 1001


async def test_a_failure_reaches_all_and_the_next_ask_again(counting: Counting, keys: Keys) -> None:
    """Nothing is remembered."""
    presence = Presence(counting)  # type: ignore[arg-type]
    name = keys.tenant("acme").policies
    counting.away = True
    for found in await asyncio.gather(presence.has(name), presence.has(name), return_exceptions=True):
        assert isinstance(found, StoreUnavailable)
    counting.away = False
    assert await presence.has(name) is False


async def test_a_cancelled_asker_costs_the_others_nothing(counting: Counting, keys: Keys) -> None:
    """They share the round trip."""
    presence = Presence(counting)  # type: ignore[arg-type]
    name = keys.tenant("acme").policies
    impatient = asyncio.ensure_future(presence.has(name))
    patient = asyncio.ensure_future(presence.has(name))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient is False
