"""Floods of what nobody should send."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from tests.fleet.floods import Floods, Source
from tests.fleet.foreign import ACK, DECIDE, RESULT, Foreign
from tests.nats_client import connect
from tests.survive.arena import Arena
from tests.survive.row import Act, Row, Setup

_GARBAGE = (b"", b"{", b'{"version":"1"}', b"\xff\xfe\x00", b"[]", b"null", b'{"tenant_id":"leased"}', b"\x00" * 5_000)
_PACE = 20
"""Messages between two breaths: the flood is bounded, and the caller's machine has other things to do."""


def _garbage(subject: str, count: int) -> Act:
    async def act(ground: Arena) -> None:
        dice = random.Random(7)  # noqa: S311 - repeatable on purpose
        client = await connect(ground.fleet.nats.url)
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


def _flood(source: Callable[[str], Source]) -> Act:
    """Twice what the pods decide when they are alone, for five seconds; the load is the victim. `source` gets a tenant
    that has no other requests.
    """

    async def act(ground: Arena) -> None:
        folder = ground.fleet.folder / "floods"
        folder.mkdir()
        floods = Floods(ground.fleet, folder)
        tenant = await ground.fleet.tenant()
        capacity = await floods.capacity(tenant)
        found = await floods.open(source(tenant), 2 * capacity, 5)
        ground.told.append(f"the pods decided {capacity:,.0f}/s when alone; the flood: {found.line}")
        ground.check("the flood lost no answer and got none twice", (found.lost, found.doubled) == (0, 0))
        in_time = found.silent_after_s <= 1 + ground.slack_s
        ground.check(f"its last answer came within a second ({found.silent_after_s:.2f} s)", in_time)

    return act


async def _admin_polling(ground: Arena) -> None:
    """60 clients ask for the breakers of all tenants without a pause, for five seconds."""

    async def poll(caller: Foreign) -> None:
        while True:
            with suppress(TimeoutError):
                await caller.ask({}, subject="beamline.router.v1.admin.get_circuit_breaker_states")

    async with Foreign(ground.fleet.nats.url) as caller:
        polls = [asyncio.create_task(poll(caller)) for _ in range(60)]
        await asyncio.sleep(5)
        for one in polls:
            one.cancel()
        await asyncio.gather(*polls, return_exceptions=True)


async def _wrong_tokens(ground: Arena) -> None:
    """3,000 acts with guessed tokens."""
    async with Foreign(ground.fleet.nats.url) as caller:
        for number in range(3_000):
            headers = {"authorization": f"Bearer {number:032}"}
            await caller.send(b'{"tenant_id":"leased"}', headers, "beamline.router.v1.admin.purge_tenant")
            if number % _PACE == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(1)
    size = max(pod.log.stat().st_size for pod in ground.pods)
    ground.check(f"the log stays small ({size:,} bytes)", size < 200_000)


ROWS = (
    Row(
        name="floods.tenant",
        fault="a tenant that asks for twice what the pods can decide",
        promise="other tenants are not refused as overloaded",
        see="when-prometheus-alerts",
        act=_flood(Source.of_tenant),
        refused=frozenset({"unavailable"}),
        setup=Setup(pods=2),
        exempt=frozenset({"requests whose decision is not audited once"}),
    ),
    Row(
        name="floods.strangers",
        fault="unknown tenants that ask for twice what the pods can decide",
        promise="other tenants are not refused as overloaded",
        see="when-prometheus-alerts",
        act=_flood(lambda _: Source.of_strangers()),
        refused=frozenset({"unavailable"}),
        setup=Setup(pods=2),
    ),
    Row(
        name="floods.admin_polling",
        fault="60 clients poll the breakers of all tenants",
        promise="decisions continue",
        see="pull-a-lever",
        act=_admin_polling,
        served=0.98,
    ),
    Row(
        name="floods.wrong_tokens",
        fault="3,000 guessed admin tokens",
        promise="refused, with one log line a minute; other callers notice nothing",
        see="routeradmintokensguessed",
        act=_wrong_tokens,
        served=0.98,
    ),
    Row(
        name="floods.garbage_requests",
        fault="5,000 requests of garbage",
        promise="refused one by one; other callers notice nothing",
        see="messages-with-defects",
        act=_garbage(DECIDE, 5_000),
        served=0.98,
        short=True,
    ),
    Row(
        name="floods.garbage_results",
        fault="2,000 results of garbage",
        promise="dead letters, bounded by rate; other callers notice nothing",
        see="routerdeadletters",
        act=_garbage(RESULT, 2_000),
        served=0.98,
        exempt=frozenset({"dead letters"}),
    ),
    Row(
        name="floods.garbage_acks",
        fault="2,000 acks of garbage",
        promise="dead letters, bounded by rate; other callers notice nothing",
        see="routerdeadletters",
        act=_garbage(ACK, 2_000),
        served=0.98,
        exempt=frozenset({"dead letters"}),
    ),
)
