"""Pollers of administrative reads do not slow decisions: 3,000 tenants, 60 clients that ask again at once."""

import asyncio
import os
from collections import Counter
from pathlib import Path

from tests.fleet.conftest import Own
from tests.fleet.floods import Floods, Source
from tests.fleet.foreign import Foreign, task
from tests.fleet.harness import PLAIN, Fleet, until

STRICT = os.environ.get("FLOOD_BAR") == "strict"
TENANTS, CLIENTS, RATE = 3000, 60, 40
REQUESTS = 1000 if STRICT else 120
SUBJECT = "beamline.router.v1.admin.get_circuit_breaker_states"


async def many_tenants(fleet: Fleet) -> None:
    """So many tenants, each with a breaker that an operator holds open: copies of one."""
    first = await fleet.tenant(PLAIN)
    await fleet.operator().force_open(first, provider=PLAIN["providers"][0]["name"])
    kinds = {kind: await fleet.redis("DUMP", getattr(fleet.keys.tenant(first), kind)) for kind in ("head", "policies")}
    copies = [fleet.keys.tenant(f"copy-{n:04}") for n in range(TENANTS)]
    for at in range(0, TENANTS, 500):
        await fleet.nodes.gather(
            [("RESTORE", getattr(c, kind), 0, raw) for c in copies[at : at + 500] for kind, raw in kinds.items()]
        )


async def poll(caller: Foreign, codes: Counter[str], over: asyncio.Event) -> None:
    """Ask for all breakers, again and again, as gateways do."""
    while not over.is_set():
        reply = await caller.raw(b"{}", subject=SUBJECT, within_s=30)
        # A whole page is 200 KB: only refusals are decoded.
        codes["ok" if reply.data.startswith(b'{"ok":true') else reply.error["code"]] += 1


async def test_pollers_do_not_slow_decisions(own: Own, tmp_path: Path) -> None:
    """Beside them none of the victim's requests is refused, and all pollers get their answers."""
    deadline = {} if STRICT else {"ROUTER_STORE_DEADLINE": "2s"}
    fleet, caller = await own(policies={"victim": {"default": PLAIN}}, env=deadline)
    await many_tenants(fleet)
    await caller.all([task("victim") for _ in range(50)])
    floods, victim, codes = Floods(fleet, tmp_path), Source.of_tenant("victim"), Counter[str]()
    over = asyncio.Event()
    alone = await floods.open(victim, RATE, 2.0, 0.0)
    pollers = [asyncio.create_task(poll(caller, codes, over)) for _ in range(CLIENTS)]
    try:
        beside = await floods.open(victim, RATE, REQUESTS / RATE, 0.0)
        await until(lambda: codes["ok"] >= CLIENTS or any(p.done() for p in pollers), 30, f"all are answered: {codes}")
    finally:
        over.set()
        await asyncio.gather(*pollers)
    print(f"\nalone:  {alone.line}\nbeside: {beside.line}\npolls: {dict(codes)}, load {os.getloadavg()[0]:.1f}")
    assert (beside.refused, beside.lost, beside.doubled) == ({}, 0, 0), beside.line
    assert set(codes) <= {"ok", "service_overloaded"}
    if STRICT:
        assert beside.p99_ms <= 100, beside.line
