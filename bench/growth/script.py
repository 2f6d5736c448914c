"""Instructions of lua/decide.lua per row, by shape: counted as `bench.count.script` does.

`python -m bench.growth.script FOLDER`, with the valgrind command behind it. Standard output gets a line of JSON:
shape → rows that were counted. Shapes are named by their group and name.
"""

import json
import sys
from itertools import count, islice
from pathlib import Path

from redis import Redis

from bench.count.script import TIMEOUT_S, still_clock
from bench.growth.shapes import Shape, counted
from bench.processes import HOST, start_valkey
from bench.rows import Calls, planned_from
from router.domain.policy.document import parse
from router.domain.policy.model import StoredPolicy
from router.store.decisions import decide_script

ROWS, CALLS = 16, 12
AUDIT_EACH = 1_000
"""Entries of a long audit log here: callgrind makes a server fifty times slower."""


def main() -> None:
    """Count every shape."""
    folder, *under = sys.argv[1:]
    server, port = start_valkey(Path(folder), "any", appendfsync=None, under=under, timeout_s=TIMEOUT_S)
    try:
        redis = Redis(HOST, port, socket_timeout=TIMEOUT_S)
        calls = Calls(decide_script(replace={"clock": still_clock()}))
        redis.execute_command(*calls.script.load)  # type: ignore[no-untyped-call]
        ids = count()
        for name, shape in counted().items():
            shape.fill_audit(redis, AUDIT_EACH)
            for dump in (f"warm {name}", name):
                _run(redis, calls, shape, ids)
                redis.echo(dump)
            redis.flushdb()
    finally:
        server.stop()
    print(json.dumps(dict.fromkeys(counted(), ROWS * CALLS)))


def _run(redis: Redis, calls: Calls, shape: Shape, ids: "count[int]") -> None:
    compiled = parse(shape.document()).policy
    stored = {f"tenant-{n:05d}": StoredPolicy("default", 1, "0" * 16, compiled) for n in range(shape.tenants)}
    rows = planned_from(shape.requests(ROWS * CALLS, (f"{n:016x}" for n in ids)), stored)
    for _ in range(CALLS):
        batch = calls.batch(islice(rows, ROWS))
        keys, arguments = list(batch.index), [calls.header, *batch.rows]
        reply = redis.execute_command(*calls.script.call, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]
        codes = {row[4] for row in reply[3:]}
        if codes != {0}:
            raise SystemExit(f"rows were not admitted: codes {codes}")


if __name__ == "__main__":
    main()
