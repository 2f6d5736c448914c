"""What is known about a server that blocks some commands: nothing needs CONFIG, and what is unknown is no refusal."""

from pathlib import Path
from typing import Any

import pytest

from router.errors import StoreForbidden
from router.selftest.check import NotChecked, NotSeen
from router.selftest.redis import RedisChecks
from router.store.servers.facts import UNKNOWN_POLICY, Eviction, RedisServers
from router.store.servers.nodes import SingleNode
from tests.servers import LimitedValkey, ValkeyProcess


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_the_policy_is_in_info(servers: None, tmp_path: Path, policy: str) -> None:
    """Without CONFIG; a policy that may evict is a problem, unless it is allowed, whatever an operator states."""
    server = LimitedValkey(tmp_path, withheld=("CONFIG",))
    server.args = (*server.args, "--maxmemory-policy", policy)
    with server:
        nodes = SingleNode(server.url)
        with pytest.raises(StoreForbidden, match="does not allow CONFIG"):
            await nodes.call("CONFIG", "GET", "maxmemory-policy")
        found = await RedisServers(nodes, stated_policy="noeviction").eviction()
        assert found.unknown is None
        assert [policy in p for p in found.problems] == ([] if policy == "noeviction" else [True])
        assert await RedisServers(nodes, allow_eviction=True).eviction() == Eviction()
        await nodes.close()


@pytest.mark.parametrize(
    ("stated", "problems", "unknown"),
    [(None, 0, UNKNOWN_POLICY), ("noeviction", 0, None), ("allkeys-lru", 1, None), ("volatile-lfu", 1, None)],
)
async def test_without_info_the_operator_states_the_policy(
    servers: None, tmp_path: Path, stated: str | None, problems: int, unknown: str | None
) -> None:
    """Unknown is a warning that names the setting; a stated policy counts like one that INFO has."""
    with LimitedValkey(tmp_path, "~* &* +@all -info -config") as server:
        nodes = SingleNode(server.pod_url)
        await nodes.open()
        facts = RedisServers(nodes, stated_policy=stated)
        found = await facts.eviction()
        assert (len(found.problems), found.unknown) == (problems, unknown)
        assert await facts.memory_share() is None
        await nodes.close()


class Told(SingleNode):
    """A server whose INFO lacks some lines, as those of proxies and of other makes."""

    def __init__(self, url: str, *missing: str) -> None:
        super().__init__(url)
        self._missing = missing

    async def each(self, *command: bytes | str | int) -> list[Any]:
        """INFO without the lines."""
        return [{k: v for k, v in info.items() if k not in self._missing} for info in await super().each(*command)]


async def test_lines_that_info_lacks(redis_url: str) -> None:
    """Each unknown fact is unknown alone."""
    nodes = Told(redis_url, "maxmemory_policy")
    assert (await RedisServers(nodes).eviction()).unknown == UNKNOWN_POLICY
    assert await RedisServers(nodes).memory_share() == 0.0
    await nodes.close()
    for line in ("maxmemory", "used_memory"):
        nodes = Told(redis_url, line)
        assert await RedisServers(nodes).eviction() == Eviction()
        assert await RedisServers(nodes).memory_share() is None
        await nodes.close()


async def test_the_memory_share(servers: None, tmp_path: Path) -> None:
    """Used memory of maxmemory; 0 without one."""
    with ValkeyProcess(tmp_path) as server:
        nodes = SingleNode(server.url)
        assert await RedisServers(nodes).memory_share() == 0.0
        await nodes.call("CONFIG", "SET", "maxmemory", "100mb")
        share = await RedisServers(nodes).memory_share()
        assert share is not None
        assert 0 < share < 0.5
        await nodes.close()


async def test_the_selftest_does_not_fail_on_what_it_cannot_see(servers: None, tmp_path: Path) -> None:
    """Blocked INFO: not checked, with Redis's words. A known problem still fails."""
    with LimitedValkey(tmp_path, "~* &* +@all -info") as server:
        nodes = SingleNode(server.pod_url)
        checks = RedisChecks(nodes, RedisServers(nodes), allow_volatile=False)
        for check in (checks.version, checks.eviction, checks.persistence):
            with pytest.raises(NotChecked):
                await check()
        assert "apart" in await checks.clock()
        with pytest.raises(NotSeen, match="allkeys-lru"):
            await RedisChecks(nodes, RedisServers(nodes, stated_policy="allkeys-lru"), allow_volatile=False).eviction()
        await nodes.close()
