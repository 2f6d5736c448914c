"""Pods on a Redis that blocks commands: what a part needs is off and named, what everything needs is the reason."""

import asyncio
from pathlib import Path

import pytest

from router.domain.access import Party
from router.store.servers.rights import Server, acl_rules
from tests.fleet.foreign import USAGE, Foreign, Worker, task
from tests.fleet.harness import Fleet, until
from tests.servers import LimitedValkey

POD = acl_rules(Party.POD, Server())
EVERYTHING = "~* &* +@all"
PARTS = ("store_facts", "store_walks", "function_library", "state_ranges")


def limited(folder: Path, rules: str, *withheld: str, **env: str) -> Fleet:
    """A fleet of one pod, not started, on such a Redis."""
    valkey = LimitedValkey(folder / "valkey", rules, withheld=withheld)
    return Fleet(folder / "fleet", pods=1, valkey=valkey, env=env)


@pytest.mark.parametrize(
    ("rules", "withheld", "off"),
    [
        (EVERYTHING, ("CONFIG", "CLIENT", "SCRIPT", "WAIT", "CLUSTER", "COMMAND", "ACL"), set()),
        (POD, (), set()),
        (
            f"{EVERYTHING} -info",
            ("CONFIG", "FUNCTION", "SCRIPT", "CLIENT", "MEMORY", "DBSIZE", "SCAN", "SETRANGE"),
            set(PARTS),
        ),
    ],
)
async def test_a_pod_serves_without_what_it_does_not_need(
    servers: None, tmp_path: Path, rules: str, withheld: tuple[str, ...], off: set[str]
) -> None:
    """It is ready, decides, pushes and settles; /readyz names the parts that are off, with the command."""
    async with limited(tmp_path, rules, *withheld) as fleet, Foreign(fleet.nats.url) as caller:
        (pod,) = fleet.pods
        status, body = await pod.readyz()
        assert status == 200
        assert set(body["degraded"]) == off
        assert ("MEMORY USAGE" in str(body["degraded_reasons"])) is ("store_walks" in off)
        assert ("ROUTER_REDIS_MAXMEMORY_POLICY" in str(body["degraded_reasons"])) is ("store_facts" in off)
        assert len(pod.logged("pod.degraded")) == len(off)
        tenant = await fleet.tenant()
        first = await caller.ask(task(tenant, "one"))
        again = await caller.ask(task(tenant, "one"))
        assert again.decision["decision_id"] == first.decision["decision_id"]
        usage = await caller.watch(USAGE)
        async with asyncio.timeout(20):
            await Worker(caller).start()
            assert (await caller.ask(task(tenant, "two", push_assignment=True))).ok
            await usage.one(request_id="two")


async def test_a_stated_policy_settles_what_info_does_not_say(servers: None, tmp_path: Path) -> None:
    """The setting ends the warning."""
    env = {"ROUTER_REDIS_MAXMEMORY_POLICY": "noeviction"}
    async with limited(tmp_path, f"{POD} -info", **env) as fleet:
        assert (await fleet.pods[0].readyz())[1]["degraded"] == []


@pytest.mark.parametrize(
    ("rules", "env", "reason"),
    [
        (f"{POD} -get", {}, "does not allow GET"),
        (POD, {"ROUTER_WAIT_REPLICAS": "1"}, "does not allow WAIT"),
        (POD, {"ROUTER_STORE_SCHEMA": "r9"}, "does not allow keys r9:*, keys r9{*"),
    ],
)
async def test_a_right_that_everything_needs_is_the_reason(
    servers: None, tmp_path: Path, rules: str, env: dict[str, str], reason: str
) -> None:
    """Not ready, in words that name the command or the keys; nothing is decided by halves."""
    valkey = LimitedValkey(tmp_path / "valkey", rules)
    async with Fleet(tmp_path / "fleet", pods=0, valkey=valkey, env=env) as fleet:
        pod = await fleet.pod().start(wait=False)

        async def named() -> bool:
            return reason in str((await pod.readyz())[1].get("reasons"))

        await until(named, 60, f"a reason with {reason!r}")
        assert (await pod.readyz())[0] == 503


@pytest.mark.timeout(120)
async def test_a_changed_eviction_policy_is_said_while_the_pod_serves(servers: None, tmp_path: Path) -> None:
    """Keys may be lost from now on: `degraded` says so with the remedy, decisions go on, and it ends with the cause."""
    async with Fleet(tmp_path, pods=1) as fleet, Foreign(fleet.nats.url) as caller:
        (pod,) = fleet.pods

        async def off() -> list[str]:
            return list((await pod.readyz())[1]["degraded"])

        async def is_said() -> bool:
            return await off() == ["eviction"]

        async def is_over() -> bool:
            return await off() == []

        await fleet.redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await until(is_said, 40, "the policy is said")
        assert "set noeviction" in (await pod.readyz())[1]["degraded_reasons"]["eviction"]
        assert (await caller.ask(task(await fleet.tenant()))).ok
        await fleet.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await until(is_over, 40, "it is over")
