"""The audit log: what is found, in which order, by which bounds."""

from struct import pack
from typing import Any

import pytest
from msgspec import msgpack
from msgspec.structs import replace
from redis import Redis

from router.domain.audit.records import AuditQuery, DecisionFeatures, PolicyFrame, TaskFeatures
from router.domain.decide.decision import Reason
from router.domain.decide.outcome import Admitted, LimitHit
from router.domain.decide.request import Correlation
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Sticky, provider
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.tasks.task import Action, Move
from router.errors import InvalidInput
from router.store.audit.log import RedisAudit
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.usecases.audit.query import QueryAudit
from tests.store.harness import MINUTE, Ask, Store, policy, request

FIVE = (11, 12, 13, 14, 15)


def record(n: int, *, user: str | None = None, status: str | None = None, trace: str | None = None) -> bytes:
    """A packed record of a settled result."""
    head = pack(">BBdd16sBBdB", 1, Action.RESULT_SETTLED, float(n), 5.0, n.to_bytes(16), 0, 1, -1.0, 0)
    features = TaskFeatures(f"r{n}", "default", 1, "alpha", f"a{n}", user, trace, status)
    return head + msgpack.encode(features)


async def written(nodes: SingleNode, keys: Keys, tenant: str, ms: int, raw: bytes) -> None:
    """One entry at a place of its own."""
    await nodes.call("XADD", keys.tenant(tenant).audit, f"{ms}-0", "r", raw)


async def found(query: QueryAudit, wanted: AuditQuery, limit: int = 100) -> list[int]:
    """All pages, as the places of their entries."""
    places: list[int] = []
    cursor: str | None = None
    while True:
        page = await query.page(wanted, cursor=cursor, limit=limit)
        assert len(page.entries) <= limit
        places += [int(e.id.partition("-")[0]) for e in page.entries]
        cursor = page.cursor
        if cursor is None:
            return places


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 100])
async def test_pages_hold_every_entry_once_newest_first(plain: SingleNode, keys: Keys, limit: int) -> None:
    """Whatever the size of a page and of a batch."""
    for ms in range(1, 8):
        await written(plain, keys, "t", ms, record(ms))
    query = QueryAudit(RedisAudit(keys, plain), batch=3)
    assert await found(query, AuditQuery("t"), limit) == [7, 6, 5, 4, 3, 2, 1]


async def test_a_range_includes_its_beginning_and_excludes_its_end(plain: SingleNode, keys: Keys) -> None:
    """since ≤ entry < until, also over pages."""
    for ms in FIVE:
        await written(plain, keys, "t", ms, record(ms))
    query = QueryAudit(RedisAudit(keys, plain), batch=1)
    assert await found(query, AuditQuery("t", since_ms=12, until_ms=14), 1) == [13, 12]
    assert await found(query, AuditQuery("t", until_ms=13)) == [12, 11]


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (AuditQuery("t", user_id="ann"), [3, 1]),
        (AuditQuery("t", user_id="an"), []),
        (AuditQuery("t", outcome="error"), [2]),
        (AuditQuery("t", trace_id="trace-3"), [3]),
        (AuditQuery("t", request_id="r2"), [2]),
        (AuditQuery("t", decision_id="00000000-0000-0000-0000-000000000002"), [2]),
        (AuditQuery("t", action="result"), [3, 2, 1]),
        (AuditQuery("t", action="decision"), []),
        (AuditQuery("t", resource_type="assignment", resource_id="a1"), [1]),
        (AuditQuery("t", resource_type="policy"), []),
        (AuditQuery("t", user_id="ann", outcome="success"), [3, 1]),
        (AuditQuery("other"), []),
    ],
)
async def test_filters(plain: SingleNode, keys: Keys, wanted: AuditQuery, places: list[int]) -> None:
    """Each compares its own field, all of them must hold, and the tenant always does."""
    await written(plain, keys, "t", 1, record(1, user="ann", status="success", trace="trace-1"))
    await written(plain, keys, "t", 2, record(2, user="bob", status="error", trace="trace-2"))
    await written(plain, keys, "t", 3, record(3, user="ann", status="success", trace="trace-3"))
    assert await found(QueryAudit(RedisAudit(keys, plain)), wanted) == places


async def test_turning_pages_while_the_log_grows_and_is_trimmed(plain: SingleNode, keys: Keys) -> None:
    """New entries do not move the next page, and a trim beyond the cursor only ends it."""
    for ms in FIVE:
        await written(plain, keys, "t", ms, record(ms))
    query = QueryAudit(RedisAudit(keys, plain))
    first = await query.page(AuditQuery("t"), limit=2)
    await written(plain, keys, "t", 16, record(16))
    await plain.call("XTRIM", keys.tenant("t").audit, "MINID", "12")
    second = await query.page(AuditQuery("t"), cursor=first.cursor, limit=100)
    assert [e.id for e in first.entries] == ["15-0", "14-0"]
    assert [e.id for e in second.entries] == ["13-0", "12-0"]
    await plain.call("XTRIM", keys.tenant("t").audit, "MINID", "16")
    assert (await query.page(AuditQuery("t"), cursor=first.cursor)).entries == []


async def test_the_work_of_a_page_is_bounded(plain: SingleNode, keys: Keys) -> None:
    """A page that finds nothing within its bound says where to go on; turning pages finds what is there."""
    for ms in range(1, 31):
        await written(plain, keys, "t", ms, record(ms, user="rare" if ms == 2 else "many"))
    query = QueryAudit(RedisAudit(keys, plain), max_read=10, batch=4)
    wanted = AuditQuery("t", user_id="rare")
    page = await query.page(wanted)
    assert (page.entries, page.read, page.cursor is None) == ([], 10, False)
    assert await found(query, wanted) == [2]


async def test_a_cursor_is_of_its_query(plain: SingleNode, keys: Keys) -> None:
    """Another tenant, another filter or garbage is refused; only the time range may move."""
    for ms in FIVE:
        await written(plain, keys, "t", ms, record(ms))
    query = QueryAudit(RedisAudit(keys, plain))
    cursor = (await query.page(AuditQuery("t"), limit=2)).cursor
    for other in (AuditQuery("u"), AuditQuery("t", user_id="x")):
        with pytest.raises(InvalidInput, match="not a cursor of this query"):
            await query.page(other, cursor=cursor)
    for garbage in ("", "x", "ü", "A" * 40, f"{cursor}AAAA"):
        with pytest.raises(InvalidInput, match="not a cursor of this query"):
            await query.page(AuditQuery("t"), cursor=garbage)
    moved = await query.page(AuditQuery("t", since_ms=13), cursor=cursor)
    assert [e.id for e in moved.entries] == ["13-0"]


async def test_every_mistake_of_a_query_is_named(plain: SingleNode, keys: Keys) -> None:
    """Limit, range and cursor at once."""
    with pytest.raises(InvalidInput) as refused:
        await QueryAudit(RedisAudit(keys, plain)).page(AuditQuery("t", since_ms=5, until_ms=5), cursor="x", limit=0)
    assert [p.path for p in refused.value.problems] == ["limit", "since", "cursor"]


async def test_a_record_that_cannot_be_read_spoils_no_page(plain: SingleNode, keys: Keys) -> None:
    """Newer formats, unknown actions and damaged records are shown as such, between their neighbours."""
    await written(plain, keys, "t", 1, record(1))
    for ms, raw in enumerate((b"", b"\x09\x01", b"\x01\xff", record(4)[:30], record(5) + b"\x01"), 2):
        await written(plain, keys, "t", ms, raw)
    await written(plain, keys, "t", 9, record(9))
    entries = (await QueryAudit(RedisAudit(keys, plain)).page(AuditQuery("t"))).entries
    assert [e.action for e in entries] == ["result.settled", *["unreadable"] * 5, "result.settled"]
    assert all(e.details["problem"] for e in entries[1:-1])


async def test_stats_tell_size_span_and_actions(nodes: SingleNode, keys: Keys) -> None:
    """Entries, oldest and newest, bytes, and actions over a bounded sample."""
    for ms in FIVE:
        await written(nodes, keys, "t", ms, record(ms))
    log = RedisAudit(keys, nodes)
    stats = await log.stats("t", sample=3)
    assert (stats.entries, stats.oldest_us, stats.newest_us) == (5, 11_005, 15_005)
    assert (stats.sampled, stats.actions) == (3, {"result.settled": 3})
    assert stats.size_bytes > 5 * len(record(11))
    empty = await log.stats("nobody", sample=3)
    assert (empty.entries, empty.oldest_us, empty.size_bytes, empty.actions) == (0, None, 0, {})


def full(tenant: str, request_id: str) -> Ask:
    """A request with everything that a record may hold, as long as such things get, under a large policy."""
    names = tuple(f"provider-{n:02}.europe-west4/large-model" for n in range(10))
    providers = tuple(provider(n, priority=10 - i, max_concurrency=5) for i, n in enumerate(names))
    limits = tuple(
        limit(f"{scope.value}-requests-per-minute", scope, Resource.REQUESTS, 2, MINUTE)
        for scope in (Scope.TENANT, Scope.USER, Scope.POLICY)
    )
    stored = policy(*providers, limits=limits, breaker=Breaker(), sticky=Sticky("session_id", MINUTE))
    asked = replace(
        request(tenant, request_id, session="s" * 64, user="u" * 64),
        client_ip="2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        correlation=Correlation("t" * 64),
    )
    return Ask(asked, stored)


def test_records_of_every_feature_are_small(single: Redis) -> None:
    """Ten providers, three limits, pin, breaker, long names: no record takes more than 1 KB, and each is told whole."""
    store = Store(single)
    tenant = store.tenant()
    outcomes = [store.decide(full(tenant, f"{n}" * 36))[0] for n in range(3)]
    assert isinstance(outcomes[0], Admitted)
    assert isinstance(outcomes[2], LimitHit)
    rows: Any = single.xrange(store.of(tenant).audit)
    assert max(len(fields[b"r"]) for _, fields in rows) <= 1024
    made = store.audit(tenant)[0]
    assert made.outcome == "decided"
    assert made.details["reason"] == Reason.WEIGHTED.label
    candidates = made.details["candidates"]
    assert isinstance(candidates, list)
    assert len(candidates) == 10


def test_a_degraded_note_is_read_as_written(store: Store) -> None:
    """A record that a pod kept while the store was away."""
    tenant = store.tenant()
    features = msgpack.encode(DecisionFeatures("r", "chat", None, None, None, 0, PolicyFrame("p", 1, "h", ("a",), ())))
    store.settle(Move(tenant, bytes(16), Action.DECISION_DEGRADED, features, Reason.WEIGHTED, note=True))
    (entry,) = store.audit(tenant)
    assert (entry.action, entry.outcome, entry.details["provider_id"]) == ("decision.degraded", "degraded", "a")
