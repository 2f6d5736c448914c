"""A fleet behind Redis Sentinel: the primary is lost, and callers get the decisions that they had."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import run_process
from tests.fleet.conftest import Own
from tests.fleet.foreign import task
from tests.fleet.harness import until
from tests.sentinels import MASTER, SentinelSet
from tests.servers import to_its_end

POLICIES = {
    "acme": {
        "default": {"version": "1.0", "providers": [{"name": "alpha", "weight": 50}, {"name": "beta", "weight": 50}]}
    }
}


@pytest.fixture
async def sentinels(servers: None, tmp_path: Path) -> AsyncIterator[SentinelSet]:
    """Two replicas of equal priority, three sentinels."""
    found = SentinelSet(tmp_path / "sentinels")
    await to_its_end(found.__enter__)
    yield found
    await to_its_end(found.__exit__)


async def test_a_fleet_follows_its_sentinels(own: Own, sentinels: SentinelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ROUTER_WAIT_REPLICAS=1: after the failover both pods decide, repeat what they decided, and log where to."""
    first = await asyncio.to_thread(sentinels.named)
    where = {
        "ROUTER_REDIS_SENTINELS": ",".join(f"{host}:{port}" for host, port in sentinels.addresses),
        "ROUTER_REDIS_SENTINEL_MASTER": MASTER,
        "ROUTER_WAIT_REPLICAS": "1",
    }
    fleet, caller = await own(policies=POLICIES, env=where, valkey=sentinels.server(first))
    replies = await caller.all([task("acme", f"before-{n}") for n in range(40)])
    before = {n: reply.decision for n, reply in enumerate(replies) if reply.ok}
    assert before
    await asyncio.to_thread(sentinels.server(first).kill)
    async with asyncio.timeout(60):
        while await asyncio.to_thread(sentinels.named) == first:  # noqa: ASYNC110 - sentinels have no event for us
            await asyncio.sleep(0.02)
    switched = time.monotonic()

    async def both_decide() -> bool:
        found = await caller.all([task("acme", f"{time.monotonic_ns()}") for _ in range(20)])
        return all(reply.ok for reply in found) and len({reply.pod for reply in found}) == 2

    await until(both_decide, 30, "both pods decide")
    assert time.monotonic() - switched < 10, "far more than the 3 s that an unburdened machine needs"
    for number, decision in before.items():
        again = await caller.ask(task("acme", f"before-{number}"))
        assert again.ok, again
        assert again.decision == decision
    for pod in fleet.pods:
        assert '"event":"store.primary_moved"' in pod.log.read_text()
    for name, value in where.items():
        monkeypatch.setitem(os.environ, name, value)
    ran = await run_process("selftest", "--json", "--allow-volatile", "--nats", fleet.nats.url, cwd=fleet.folder)
    checks = {check["check"]: (check["verdict"], check["seen"]) for check in orjson.loads(ran.out)}
    # The old primary is still down, and the sentinels count it as a replica.
    assert checks["Redis sentinels"][0] == "ok", checks
    assert "3 sentinels name 127.0.0.1:" in checks["Redis sentinels"][1]
    assert checks["one counter for all pods"][0] == "ok", checks
    await asyncio.to_thread(sentinels.sentinels[2].kill)
    ran = await run_process("selftest", "--json", "--allow-volatile", "--nats", fleet.nats.url, cwd=fleet.folder)
    checks = {check["check"]: (check["verdict"], check["seen"]) for check in orjson.loads(ran.out)}
    assert checks["Redis sentinels"][0] == "failed"
    assert f"sentinel 127.0.0.1:{sentinels.sentinels[2].port}" in checks["Redis sentinels"][1]
