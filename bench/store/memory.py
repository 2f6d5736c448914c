"""Bytes per key, two ways: MEMORY USAGE of a sample, and how much `used_memory` grows or falls per key.

The idempotency key has a budget of 200 bytes at a million keys: real values, without the optional tail, under random
names. The others are what real decisions leave behind.
"""

import os
import time
from collections.abc import Iterator, Sequence
from statistics import mean

from msgspec import Struct
from redis import Redis

from bench.bars import Bar
from bench.rows import PARTITIONS, SCHEMA, Calls, idempotency_pairs
from router.domain.ids import NAME_BYTES, assignment_id, to_text
from router.domain.tasks.result import ExecResult, ResultStatus
from router.store.keys import Keys
from router.store.tasks.records import kept_final
from router.usecases.tasks.final_results import DEFAULT_KEEP
from router.wire.assignment import final_result, final_result_to_keep
from router.wire.worker.job import Origin

IDEMPOTENCY, AUDIT, FINAL = "idempotency key", "audit entry", "final result kept for repeats"
MAX_BYTES = {IDEMPOTENCY: 200, AUDIT: 1_024}
_SAMPLE = 200
_CHUNK = 5_000


class KeyCost(Struct, frozen=True):
    """Bytes of one kind of key on one server, names and overhead included; `delta` None: not measured that way."""

    server: str
    kind: str
    keys: int
    usage: float
    delta: float | None


def name_of(redis: Redis) -> str:
    """What server it is, e.g. `redis 7.0.15`."""
    found = redis.info("server")
    assert isinstance(found, dict)
    if found.get("server_name") == "valkey":
        return f"valkey {found['valkey_version']}"
    return f"redis {found['redis_version']}"


def bars(costs: Sequence[KeyCost]) -> list[Bar]:
    """What a key may cost at most, by either way of measuring, on every server."""
    return [
        Bar(f"{c.kind} on {c.server}", max(c.usage, c.delta or 0.0), MAX_BYTES[c.kind], False, "B")
        for c in costs
        if c.kind in MAX_BYTES
    ]


def used_memory(redis: Redis) -> int:
    """Bytes that Redis has allocated, when it has freed what was deleted (which Valkey does in the background)."""
    until = time.monotonic() + 30
    while True:
        found = redis.info("memory")
        assert isinstance(found, dict)
        if not int(found["lazyfree_pending_objects"]) or time.monotonic() > until:
            return int(found["used_memory"])
        time.sleep(0.005)


def idempotency(redis: Redis, keys: int) -> KeyCost:
    """Fill with that many idempotency keys, look, and remove them again."""
    made = idempotency_pairs(keys)
    before = used_memory(redis)
    sample: list[bytes] = []
    left = keys
    while left:
        pipeline = redis.pipeline(transaction=False)
        for _, (key, value) in zip(range(min(left, _CHUNK)), made, strict=False):
            pipeline.set(key, value, px=86_400_000)
            if len(sample) < _SAMPLE:
                sample.append(key)
        left -= len(pipeline.execute())
    grown = used_memory(redis) - before
    usage = _usage(redis, sample)
    redis.flushall()
    return KeyCost(name_of(redis), IDEMPOTENCY, keys, usage, grown / keys)


def final_results(redis: Redis, keys: int) -> Iterator[KeyCost]:
    """What is kept of a finished task for repeats, without an output and with the largest that is kept."""
    keep = DEFAULT_KEEP
    names = Keys(SCHEMA, PARTITIONS)
    for kind, output in ((FINAL, None), (f"{FINAL}, output of 4 KiB", "x" * (keep.max_output_bytes - 2))):
        result = ExecResult(ResultStatus.SUCCESS, latency_ms=1_200, cost_microusd=12_000, output=output)
        before = used_memory(redis)
        sample: list[bytes] = []
        for n in range(keys):
            task = (n % PARTITIONS).to_bytes(2) + os.urandom(14)
            body, _ = final_result(
                result,
                task_id=to_text(task),
                assignment_id=to_text(assignment_id(task, 1)),
                attempt=1,
                provider_id="provider-1",
                origin=Origin(tenant_id="tenant-1", request_id=to_text(task), task_type="chat"),
                max_bytes=1 << 20,
                max_kept=1 << 16,
            )
            key = names.final(task)
            redis.set(key, kept_final(final_result_to_keep(body, keep.max_output_bytes)), px=keep.keep_ms)
            if len(sample) < _SAMPLE:
                sample.append(key)
        grown = used_memory(redis) - before
        usage = _usage(redis, sample)
        redis.flushall()
        yield KeyCost(name_of(redis), kind, keys, usage, grown / keys)


def message_index(redis: Redis, keys: int) -> KeyCost:
    """Index entries of messages, as lua/decide.lua writes them: one tenant has the message."""
    names = Keys(SCHEMA, PARTITIONS)
    before = used_memory(redis)
    sample: list[bytes] = []
    for n in range(keys):
        tenant = names.tenant(f"tenant-{n % 100}")
        key = tenant.message(to_text(os.urandom(16)))
        redis.hset(key, f"tenant-{n % 100}", os.urandom(NAME_BYTES))
        redis.pexpire(key, 86_400_000)
        if len(sample) < _SAMPLE:
            sample.append(key)
    grown = used_memory(redis) - before
    usage = _usage(redis, sample)
    redis.flushall()
    return KeyCost(name_of(redis), "message index entry", keys, usage, grown / keys)


def left_behind(redis: Redis) -> Iterator[KeyCost]:
    """What the last measurement left, kind by kind; each kind is removed to see what it gave back."""
    for kind, pattern in (
        ("tenant's state: 2 limits", "r1:*:s"),
        ("user's state: 1 limit", "r1:*:su:*"),
        ("pin", "r1:*:pin:*"),
        (AUDIT, "r1:*:audit"),
    ):
        keys = list(redis.scan_iter(pattern, count=_CHUNK))
        units = sum(redis.xlen(k) for k in keys) if kind == AUDIT else len(keys)
        if not units:
            continue
        usage = _usage(redis, keys[:_SAMPLE]) if kind != AUDIT else _usage(redis, keys, 0) * len(keys) / units
        before = used_memory(redis)
        for at in range(0, len(keys), _CHUNK):
            redis.delete(*keys[at : at + _CHUNK])
        yield KeyCost(name_of(redis), kind, units, usage, (before - used_memory(redis)) / units)


def _usage(redis: Redis, keys: list[bytes], samples: int = 5) -> float:
    return mean(int(redis.memory_usage(k, samples=samples) or 0) for k in keys)


def filled(redis: Redis, rows: int, id_base: int) -> None:
    """Decide `rows` requests through the script, in batches."""
    calls = Calls()
    redis.execute_command(*calls.script.load)  # type: ignore[no-untyped-call]
    for keys, arguments in calls.batches(rows, 100, id_base, "user"):
        redis.execute_command(*calls.script.call, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]
