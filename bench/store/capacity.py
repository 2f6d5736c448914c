"""The capacity figures of the specification (its section 5.2) beside what is measured here.

    python -m bench.store.capacity            a million keys, about half a minute
    python -m bench.store.capacity --keys N   another number

Audit entries are written by the decide script, as always: a call of 100 rows after the other from one connection, so a
second's entries are a second's decisions of one Redis. Policies are compiled as in a pod, each by itself.
"""

import argparse
import gc
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psutil
from msgspec import Struct
from redis import Redis
from rich.console import Console
from rich.table import Table

from bench.ceiling import Caller
from bench.processes import HOST, Placement, start_valkey
from bench.rows import Calls
from bench.store.memory import KeyCost, filled, idempotency, left_behind
from bench.workload import policy
from router.domain.policy.document import parse
from router.domain.policy.model import StoredPolicy, TenantPolicies
from router.usecases.policies.size import size_of

TENANTS = 1_000
POLICIES_EACH = 4
_ROWS, _PER_CALL, _LEFT_ROWS = 40_000, 100, 40_000
_MB = 1_000_000


class Figure(Struct, frozen=True):
    """One capacity: what the specification reckons with, what was measured, under which conditions."""

    name: str
    specification: str
    measured: str
    conditions: str


class AuditRate(Struct, frozen=True):
    """Audit entries a second as the caller saw it, and what one costs Redis, which others on the machine spoil less."""

    per_second: float
    cpu_us: float


def audit_rate(redis: Redis, rows: int = _ROWS) -> AuditRate:
    """How many audit entries one Redis takes, each with the decision that it records."""
    calls = Calls()
    redis.execute_command(*calls.script.load)  # type: ignore[no-untyped-call]
    commands = calls.commands(rows, _PER_CALL, 900_000_000)
    before = _entries(redis)
    with closing(Caller(int(redis.connection_pool.connection_kwargs["port"]))) as caller:
        cpu_before, started = _cpu_s(redis), time.perf_counter()
        caller.run(commands, 1)
        seconds, cpu_s = time.perf_counter() - started, _cpu_s(redis) - cpu_before
    written = _entries(redis) - before
    return AuditRate(written / seconds, cpu_s / written * 1_000_000)


def _cpu_s(redis: Redis) -> float:
    found = redis.info("cpu")
    assert isinstance(found, dict)
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def _entries(redis: Redis) -> int:
    return sum(int(redis.xlen(key)) for key in redis.scan_iter("r1:*:audit", count=5_000))


def policy_bytes(tenants: int = TENANTS) -> tuple[float, float]:
    """Bytes a tenant that compiled policies take: by growth of this process, and as the pod's cache counts them."""
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    kept = [
        TenantPolicies(
            f"tenant-{n}",
            1,
            n.to_bytes(8),
            {f"p{i}": StoredPolicy(f"p{i}", 1, f"{n:016x}", parse(policy()).policy) for i in range(POLICIES_EACH)},
        )
        for n in range(tenants)
    ]
    gc.collect()
    grown = process.memory_info().rss - before
    return grown / tenants, sum(map(size_of, kept)) / tenants


def figures(rate: AuditRate, costs: list[KeyCost], policies: tuple[float, float]) -> list[Figure]:
    """The table's rows; `costs` as `bench.store.memory` measures them."""
    cost = {c.kind: c for c in costs}
    key, entry = cost["idempotency key"], cost["audit entry"]
    each = key.delta or key.usage
    of_entry = entry.delta or entry.usage
    grown, counted = policies
    kinds = f"{TENANTS:,} tenants × {POLICIES_EACH} policies of the workload (4 providers, 3 limits, breaker, fallback)"
    script = f"one Redis, one connection, {_PER_CALL} rows a call, each with its whole decision; no AOF"
    return [
        Figure("audit entries written", "10,000/s", f"{rate.per_second:,.0f}/s", script),
        Figure(
            "the same, by Redis' CPU",
            "10,000/s",
            f"{1_000_000 / rate.cpu_us:,.0f}/s",
            f"{rate.cpu_us:.1f} µs of Redis an entry and its decision: 10,000/s are {rate.cpu_us:.0f} % of a core",
        ),
        Figure("an audit entry", "1 KB", f"{of_entry:.0f} B", f"{entry.keys:,} entries, growth of used_memory"),
        Figure("audit at 10,000/s", "10 MB/s", f"{of_entry * 10_000 / _MB:.1f} MB/s", "computed from the row above"),
        Figure("policy cache a tenant", "100 KB", f"{grown / 1000:.1f} KB", f"{kinds}, growth of RSS"),
        Figure("the same, as the cache counts", "100 KB", f"{counted / 1000:.1f} KB", "what its bound is held to"),
        Figure("policy cache, 1,000 tenants", "100 MB", f"{grown * 1000 / _MB:.0f} MB", "in each pod"),
        Figure(
            "an idempotency key", "200 B", f"{each:.0f} B", f"{key.keys:,} keys, growth of used_memory, name included"
        ),
        Figure("1M idempotency keys", "200 MB", f"{each:.0f} MB", "measured" if key.keys == _MB else "scaled up"),
    ]


def table(found: list[Figure]) -> Table:
    """As people read it."""
    made = Table(title="Capacity, beside the specification's figures", title_justify="left")
    for name in ("figure", "specification", "measured", "conditions"):
        made.add_column(name, justify="right" if name in ("specification", "measured") else "left")
    for f in found:
        made.add_row(f.name, f.specification, f.measured, f.conditions)
    return made


def measure(redis: Redis, keys: int) -> list[Figure]:
    """Everything, on an empty server that may be filled."""
    policies = policy_bytes()
    costs = [idempotency(redis, keys)]
    rate = audit_rate(redis)
    redis.flushall()
    filled(redis, _LEFT_ROWS, 0)
    return figures(rate, [*costs, *left_behind(redis)], policies)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.store.capacity", description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=_MB, help="idempotency keys to fill (default: a million)")
    keys: int = parser.parse_args().keys
    with tempfile.TemporaryDirectory(prefix="router-capacity-") as folder:
        process, port = start_valkey(Path(folder), Placement.split().rest, appendfsync=None)
        try:
            with Redis(HOST, port) as redis:
                found = measure(redis, keys)
        finally:
            process.stop()
    Console(width=None if sys.stdout.isatty() else 160).print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
