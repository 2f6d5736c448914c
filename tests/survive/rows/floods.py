"""Floods of what nobody should send."""

import asyncio
import random

import nats

from tests.fleet.foreign import ACK, DECIDE, RESULT
from tests.survive.arena import Arena
from tests.survive.row import Act, Row

_GARBAGE = (b"", b"{", b'{"version":"1"}', b"\xff\xfe\x00", b"[]", b"null", b'{"tenant_id":"leased"}', b"\x00" * 5_000)
_PACE = 20
"""Messages between two breaths: the flood is bounded, and the caller's machine has other things to do."""


def _garbage(subject: str, count: int) -> Act:
    async def act(ground: Arena) -> None:
        dice = random.Random(7)  # noqa: S311 - repeatable on purpose
        client = await nats.connect(ground.fleet.nats.url)
        try:
            for number in range(count):
                await client.publish(subject, dice.choice(_GARBAGE), reply=client.new_inbox())
                if number % _PACE == 0:
                    await asyncio.sleep(0.01)
            await client.flush()
            await asyncio.sleep(1)
        finally:
            await client.close()

    return act


ROWS = (
    Row(
        name="floods.garbage_requests",
        fault="5,000 requests of garbage",
        promise="refused one by one; nobody else notices",
        see="messages-with-defects",
        act=_garbage(DECIDE, 5_000),
        served=0.98,
        short=True,
    ),
    Row(
        name="floods.garbage_results",
        fault="2,000 results of garbage",
        promise="dead letters, bounded by rate; nobody else notices",
        see="routerdeadletters",
        act=_garbage(RESULT, 2_000),
        served=0.98,
        exempt=frozenset({"dead letters"}),
    ),
    Row(
        name="floods.garbage_acks",
        fault="2,000 acks of garbage",
        promise="dead letters, bounded by rate; nobody else notices",
        see="routerdeadletters",
        act=_garbage(ACK, 2_000),
        served=0.98,
        exempt=frozenset({"dead letters"}),
    ),
)
