"""The capacity figures: each of the specification's has its own beside it, and measuring counts what it says."""

from pathlib import Path

import pytest
from redis import Redis

from bench.store.capacity import AuditRate, audit_rate, figures, policy_bytes
from bench.store.memory import KeyCost
from tests.servers import ValkeyProcess

pytestmark = pytest.mark.usefixtures("servers")


def test_an_entry_is_written_for_every_decision(tmp_path: Path) -> None:
    """The rate is of entries that are there: one a row."""
    with ValkeyProcess(tmp_path) as server, Redis.from_url(server.url) as redis:
        rate = audit_rate(redis, rows=400)
        assert sum(int(redis.xlen(key)) for key in redis.scan_iter("r1:*:audit")) == 400
    assert rate.per_second > 0
    assert rate.cpu_us > 0


def test_policies_are_counted_by_growth_and_by_the_cache() -> None:
    """Some kilobytes a tenant; a process that has memory to spare need not grow by them."""
    grown, counted = policy_bytes(tenants=50)
    assert 2_000 < counted < 100_000
    assert grown < 100_000


def test_every_figure_of_the_specification_has_one_beside_it() -> None:
    """10K entries/s and 1 KB each, 100 KB a tenant and 100 MB, 200 B a key and 200 MB."""
    costs = [
        KeyCost("valkey 9", "idempotency key", 1_000_000, 150, 133.0),
        KeyCost("valkey 9", "audit entry", 40_000, 250, None),
    ]
    found = figures(AuditRate(20_000, 30), costs, (14_000, 14_100))
    assert {f.specification for f in found} == {"10,000/s", "1 KB", "10 MB/s", "100 KB", "100 MB", "200 B", "200 MB"}
    shown = {f.name: f.measured for f in found}
    assert (shown["an audit entry"], shown["1M idempotency keys"]) == ("250 B", "133 MB")
    assert all(f.conditions for f in found)
