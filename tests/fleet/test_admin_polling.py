"""Pollers of administrative reads do not slow decisions: 3,000 tenants, 60 clients that ask again at once."""

import asyncio
import os
from collections import Counter
from pathlib import Path

import orjson

from tests.fleet.conftest import Own
from tests.fleet.floods import Floods, Source
from tests.fleet.foreign import Foreign, task
from tests.fleet.harness import PLAIN, Fleet

STRICT = os.environ.get("FLOOD_BAR") == "strict"
TENANTS, CLIENTS, RATE = 3000, 60, 40
REQUESTS = 1000 if STRICT else 120
SUBJECT = "beamline.router.v1.admin.get_circuit_breaker_states"


async def many_tenants(fleet: Fleet) -> None:
    """So many tenants, each with a breaker that an operator holds open: copies of one."""
    first = await fleet.tenant(PLAIN)
    await fleet.operator().force_open(first, PLAIN["providers"][0]["name"])
    kinds = {kind: await fleet.redis("DUMP", getattr(fleet.keys.tenant(first), kind)) for kind in ("head", "policies")}
    copies = [fleet.keys.tenant(f"copy-{n:04}") for n in range(TENANTS)]
    for at in range(0, TENANTS, 500):
        await fleet.nodes.gather(
            [("RESTORE", getattr(c, kind), 0, raw) for c in copies[at : at + 500] for kind, raw in kinds.items()]
        )


async def poll(caller: Foreign, codes: Counter[str]) -> None:
    """Ask for all breakers, again and again, as gateways do."""
    while True:
        body = (await caller.raw(b"{}", subject=SUBJECT, within_s=20)).body
        codes["ok" if body["ok"] else body["error"]["code"]] += 1


async def test_pollers_do_not_slow_decisions(own: Own, tmp_path: Path) -> None:
    """Beside them none of the victim's requests is refused, every poller gets answers, and a lever works at once."""
    deadline = {} if STRICT else {"ROUTER_STORE_DEADLINE": "2s"}
    fleet, caller = await own(policies={"victim": {"default": PLAIN}}, env=deadline)
    await many_tenants(fleet)
    await caller.all([task("victim") for _ in range(50)])
    floods, victim, codes = Floods(fleet, tmp_path), Source.of_tenant("victim"), Counter[str]()
    alone = await floods.open(victim, RATE, 2.0, 0.0)
    pollers = [asyncio.create_task(poll(caller, codes)) for _ in range(CLIENTS)]
    try:
        beside = await floods.open(victim, RATE, REQUESTS / RATE, 0.0)
    finally:
        for poller in pollers:
            poller.cancel()
        await asyncio.wait(pollers)
    print(f"\nalone:  {alone.line}\nbeside: {beside.line}\npolls: {dict(codes)}, load {os.getloadavg()[0]:.1f}")
    assert (beside.refused, beside.lost, beside.doubled) == ({}, 0, 0), beside.line
    assert codes["ok"] >= CLIENTS
    # The pods' rates, what may come at once, and what was under way.
    assert codes.total() <= 2 * 100 * (REQUESTS / RATE + 5) + CLIENTS
    if STRICT:
        assert beside.p99_ms <= 100, beside.line


async def test_the_first_page_shows_many_tenants(own: Own) -> None:
    """Pages of a thousand: by the cursor, over both pods, each tenant's breaker comes once."""
    fleet, caller = await own(policies={"victim": {"default": PLAIN}})
    await many_tenants(fleet)
    shown: list[str] = []
    body: dict[str, object] = {}
    while True:
        reply = (await caller.raw(orjson.dumps(body), subject=SUBJECT, within_s=20)).body
        shown += [state["tenant_id"] for state in reply["states"]]
        if "cursor" not in reply:
            break
        body = {"cursor": reply["cursor"]}
    assert len(shown) == len(set(shown)) == TENANTS + 1
