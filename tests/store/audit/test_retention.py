"""lua/trim_audit.lua and lua/mark_exported.lua: what goes, what stays, and what is told."""

from collections.abc import AsyncIterator
from secrets import token_hex
from typing import Any

import pytest

from router.store.audit.retention import RedisRetention, RetentionBounds, trim_script
from router.store.key_kinds import KEYS
from router.store.keys import Keys
from router.store.servers.cluster import Cluster
from router.store.servers.nodes import Nodes, SingleNode
from tests.servers import ValkeyCluster

NOW = 1_700_000_000_000
HOUR, DAY = 3_600_000, 86_400_000
BOUNDS = RetentionBounds(age_ms=7 * DAY, max_len=1_000, ttl_ms=8 * DAY)
CLOCK = f"local function server_time()\n  return {NOW}, 0\nend\n"


class Logs:
    """Audit logs in a schema of their own, looked at at one fixed time."""

    def __init__(self, nodes: Nodes, *, cluster: bool, max_cut: int = 10_000) -> None:
        self.keys = Keys(f"t{token_hex(5)}")
        self.nodes = nodes
        self.retention = RedisRetention(
            self.keys,
            nodes,
            BOUNDS,
            shared_calls=not cluster,
            max_cut=max_cut,
            trim=trim_script(replace={"clock": CLOCK}),
        )

    async def add(self, tenant: str, *ages: int, maximum: int = 1_000_000) -> None:
        """Entries of these ages in ms, as a script writes them (`maximum`: its bound)."""
        for age in ages:
            await self.nodes.call(
                "XADD", self.keys.tenant(tenant).audit, "MAXLEN", maximum, f"{NOW - age}-*", "r", b"x" * 300
            )

    async def look(self, tenant: str, *, keep_unread: bool = False) -> Any:
        """Trim at `NOW`."""
        return await self.retention.trim(tenant, check_ms=600_000, full_ms=60_000, keep_unread=keep_unread)

    async def ages(self, tenant: str) -> list[int]:
        """What is left."""
        rows = await self.nodes.call("XRANGE", self.keys.tenant(tenant).audit, "-", "+")
        return [NOW - int(row[0].partition(b"-")[0]) for row in rows]

    async def due_in(self, tenant: str) -> int | None:
        """When the tenant is looked at next, from `NOW`."""
        key = self.keys.retain(self.keys.tenant(tenant).partition)
        score = await self.nodes.call("ZSCORE", key, tenant)
        return None if score is None else int(float(score)) - NOW


@pytest.fixture(params=["single", "cluster"])
async def logs(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Logs]:
    """On one server and on a Cluster."""
    cluster = request.param == "cluster"
    servers: ValkeyCluster | None = request.getfixturevalue("valkey_cluster") if cluster else None
    nodes: Nodes = SingleNode(redis_url) if servers is None else Cluster(servers.url)
    await nodes.open()
    yield Logs(nodes, cluster=cluster)
    await nodes.close()


async def test_what_is_older_than_the_retention_goes(logs: Logs) -> None:
    """Exactly: not an entry more, and of a log of any size."""
    await logs.add("t", 9 * DAY, 8 * DAY, 7 * DAY + 1, 7 * DAY, 6 * DAY, 1)
    trimmed = await logs.look("t")
    assert (trimmed.cut, trimmed.entries) == (3, 3)
    assert await logs.ages("t") == [7 * DAY, 6 * DAY, 1]
    assert not trimmed.cut_inside_age


async def test_a_look_cuts_a_bounded_number_and_the_rest_is_due_at_once(logs: Logs) -> None:
    """A log with much to cut takes several looks; none blocks the server for long."""
    small = Logs(logs.nodes, cluster=isinstance(logs.nodes, Cluster), max_cut=200)
    await small.add("t", *(9 * DAY - n for n in range(700)), 5)
    counts = []
    while (trimmed := await small.look("t")).cut:
        counts.append(trimmed.cut)
        assert len(counts) < 20
    assert sum(counts) == 700
    assert max(counts) <= 200
    assert await small.ages("t") == [5]


async def test_the_next_look_is_when_the_oldest_gets_old(logs: Logs) -> None:
    """At the latest after the usual time; a log at its bound is looked at sooner."""
    await logs.add("t", 7 * DAY - 5_000, 1)
    await logs.look("t")
    assert await logs.due_in("t") == 5_001
    await logs.add("u", 1)
    await logs.look("u")
    assert await logs.due_in("u") == 600_000
    await logs.add("v", *range(1_100, 0, -1), maximum=1_000)
    assert (await logs.look("v")).at_bound
    assert await logs.due_in("v") == 60_000


async def test_entries_cut_by_the_bound_inside_their_age_are_counted(logs: Logs) -> None:
    """Exactly what the writers cut since the last look; what went for its age does not count."""
    await logs.add("t", 9 * DAY, *range(HOUR, HOUR - 10, -1))
    first = await logs.look("t")
    assert (first.cut, first.cut_inside_age, first.at_bound) == (1, 0, False)
    await logs.add("t", *range(1_000, 0, -1), maximum=1_000)
    second = await logs.look("t")
    assert (second.cut, second.cut_inside_age, second.at_bound, second.appended) == (0, 10, True, 1_000)
    assert (await logs.look("t")).cut_inside_age == 0


async def test_old_entries_cut_by_the_bound_are_not_missed(logs: Logs) -> None:
    """While the oldest that is left is past its age, so was all that went before it: nothing was cut inside its age."""
    await logs.add("t", *range(9 * DAY, 9 * DAY - 10, -1))
    unread = await logs.look("t", keep_unread=True)
    assert (unread.cut, unread.cut_inside_age) == (0, 0)
    await logs.add("t", *range(8 * DAY, 8 * DAY - 5, -1), maximum=10)
    trimmed = await logs.look("t", keep_unread=True)
    assert (trimmed.cut_inside_age, trimmed.lost, trimmed.at_bound) == (0, 5, False)


async def test_a_log_that_is_gone_is_forgotten(logs: Logs) -> None:
    """An idle tenant's log expires by itself; then the set and the marks forget it, too."""
    await logs.add("t", 1)
    await logs.retention.register(["t"])
    await logs.look("t")
    await logs.nodes.call("UNLINK", logs.keys.tenant("t").audit)
    assert await logs.look("t") is None
    assert await logs.due_in("t") is None
    assert await logs.nodes.call("EXISTS", logs.keys.tenant("t").audit_marks) == 0


async def test_every_log_gets_a_life_time(logs: Logs) -> None:
    """One that only notes were written to has none before; one that has keeps its own."""
    await logs.add("t", 1)
    await logs.look("t")
    assert BOUNDS.ttl_ms - 60_000 < await logs.nodes.call("PTTL", logs.keys.tenant("t").audit) <= BOUNDS.ttl_ms
    await logs.nodes.call("PEXPIRE", logs.keys.tenant("t").audit, DAY)
    await logs.look("t")
    assert await logs.nodes.call("PTTL", logs.keys.tenant("t").audit) <= DAY


async def test_a_claimed_tenant_is_no_other_pods(logs: Logs) -> None:
    """Until the claim runs out. Noticing a tenant again changes nothing."""
    await logs.retention.register(["a", "b", "c"])
    assert sorted(await logs.retention.claim(30_000, maximum=10)) == ["a", "b", "c"]
    await logs.retention.register(["a", "b", "c"])
    assert await logs.retention.claim(30_000, maximum=10) == []
    await logs.retention.due_now("b")
    assert await logs.retention.claim(30_000, maximum=10) == ["b"]


async def test_a_damaged_set_holds_up_no_other(logs: Logs) -> None:
    """One partition's set of logs is of another type: the logs of the others are looked at."""
    names = [f"tenant-{n}" for n in range(20)]
    broken = logs.keys.tenant(names[0]).partition
    await logs.retention.register([t for t in names if logs.keys.tenant(t).partition != broken])
    await logs.nodes.call("SET", logs.keys.retain(broken), "damaged")
    claimed = await logs.retention.claim(30_000, maximum=100)
    assert sorted(claimed) == sorted(t for t in names if logs.keys.tenant(t).partition != broken)


async def test_what_the_export_has_not_read_stays(logs: Logs) -> None:
    """However old; what it has read goes when it is old."""
    await logs.add("t", 9 * DAY, 8 * DAY, 1)
    first = await logs.look("t", keep_unread=True)
    assert (first.cut, first.unread, first.lost) == (0, 3, 0)
    assert await logs.retention.mark_exported("t", expected="0-0", entry_id=f"{NOW - 9 * DAY}-0", count=1)
    second = await logs.look("t", keep_unread=True)
    assert (second.cut, second.unread) == (1, 2)
    assert await logs.ages("t") == [8 * DAY, 1]


async def test_the_first_entry_after_the_mark_stays(logs: Logs) -> None:
    """Also when it is of the same millisecond as the last one that was read."""
    await logs.add("t", 9 * DAY, 9 * DAY, 9 * DAY)
    await logs.look("t", keep_unread=True)
    assert await logs.retention.mark_exported("t", expected="0-0", entry_id=f"{NOW - 9 * DAY}-0", count=1)
    trimmed = await logs.look("t", keep_unread=True)
    assert (trimmed.cut, trimmed.unread, trimmed.entries) == (1, 2, 2)


async def test_what_the_bound_cuts_before_the_export_is_lost_and_counted(logs: Logs) -> None:
    """Once; what it had read is not lost."""
    await logs.add("t", *range(100, 90, -1))
    await logs.look("t", keep_unread=True)
    assert await logs.retention.mark_exported("t", expected="0-0", entry_id=f"{NOW - 97}-0", count=4)
    await logs.add("t", *range(20, 10, -1), maximum=10)
    trimmed = await logs.look("t", keep_unread=True)
    assert (trimmed.lost, trimmed.unread) == (6, 10)
    assert (await logs.look("t", keep_unread=True)).lost == 0


async def test_an_export_that_begins_later_has_lost_nothing(logs: Logs) -> None:
    """What was cut while nobody exported was nobody's."""
    await logs.add("t", *range(100, 80, -1), maximum=10)
    await logs.look("t")
    trimmed = await logs.look("t", keep_unread=True)
    assert (trimmed.lost, trimmed.unread) == (0, 10)


async def test_a_log_made_anew_is_counted_anew(logs: Logs) -> None:
    """After its expiry the counts of the old one say nothing."""
    await logs.add("t", *range(100, 80, -1), maximum=10)
    await logs.look("t", keep_unread=True)
    await logs.nodes.call("UNLINK", logs.keys.tenant("t").audit)
    await logs.add("t", 5, 4)
    trimmed = await logs.look("t", keep_unread=True)
    assert (trimmed.appended, trimmed.cut_inside_age, trimmed.lost, trimmed.unread) == (2, 0, 0, 2)


async def test_of_two_exports_one_moves_the_mark(logs: Logs) -> None:
    """The other is told, and the mark stays where the first one put it."""
    assert await logs.retention.exported("t") == "0-0"
    assert await logs.retention.mark_exported("t", expected="0-0", entry_id="5-0", count=5)
    assert not await logs.retention.mark_exported("t", expected="0-0", entry_id="7-0", count=7)
    assert await logs.retention.exported("t") == "5-0"


async def test_the_keys_are_those_of_the_table(logs: Logs) -> None:
    """Types and life times of marks and set."""
    await logs.add("t", 1)
    await logs.look("t")
    tenant = logs.keys.tenant("t")
    for kind, key in (("audit_marks", tenant.audit_marks), ("retain", logs.keys.retain(tenant.partition))):
        assert (await logs.nodes.call("TYPE", key)).decode() == KEYS[kind].type
    assert 0 < await logs.nodes.call("PTTL", tenant.audit_marks) <= BOUNDS.ttl_ms
