"""Instructions of lua/decide.lua and lua/settle.lua per row, in a real server: `python -m bench.count.script FOLDER`,
with the valgrind command behind it.

Counted is what the server does in the command FCALL, script and inner commands included; not the socket and not the
server's own timers. The script's clock stands still: otherwise the buckets of a limit would roll in calls that a slower
machine makes later. Each load first runs uncounted with the same requests under other ids, so that states and pins are
there; the warm-up of a settle load also makes the decisions that it settles. ECHO makes callgrind write a dump: one for
each warm-up, one for each load. Standard output gets a line of JSON: load → rows that were counted.
"""

import json
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from redis import Redis

from bench.count.settlements import Decided, Settlements
from bench.processes import HOST, start_valkey
from bench.rows import Calls, planned
from router.installed_files import lua_dir
from router.store.decisions import decide_script
from router.store.scripts.load import Script
from router.store.tasks.store import settle_script

DECIDE_LOADS = {"script 128": (128, 6), "script 1": (1, 200)}
"""Rows a call, and the calls that are counted."""
SETTLE_LOADS = {"settle 32": (32, 12), "settle 1": (1, 200)}
"""The same. Results are settled in batches of those that came during the call before."""
LOADS = DECIDE_LOADS | SETTLE_LOADS
_NOW_MS = 1_800_000_000_000
TIMEOUT_S = 120


def main() -> None:
    """Count every load."""
    folder, *under = sys.argv[1:]
    server, port = start_valkey(Path(folder), "any", appendfsync=None, under=under, timeout_s=TIMEOUT_S)
    try:
        redis = Redis(HOST, port, socket_timeout=TIMEOUT_S)
        clock = {"clock": still_clock()}
        calls, settle = Calls(decide_script(replace=clock)), settle_script(replace=clock)
        for script in (calls.script, settle):
            redis.execute_command(*script.load)  # type: ignore[no-untyped-call]
        first_id = 0
        for name, (rows, count) in DECIDE_LOADS.items():
            for dump in (f"warm {name}", name):
                _run(redis, calls.script, calls.batches(rows * count, rows, first_id))
                redis.echo(dump)
                first_id += 1 << 20
        settlements = Settlements(_NOW_MS)
        for name, (rows, count) in SETTLE_LOADS.items():
            warm, counted = (_decided(redis, calls, rows * count, first_id + (n << 20)) for n in range(2))
            first_id += 2 << 20
            for dump, decided in ((f"warm {name}", warm), (name, counted)):
                _run(redis, settle, settlements.batches(decided, rows))
                redis.echo(dump)
    finally:
        server.stop()
    print(json.dumps({name: rows * count for name, (rows, count) in LOADS.items()}))


def still_clock() -> str:
    """The script's own clock, whose time is read and not used."""
    own = (lua_dir() / "include" / "clock.lua").read_text().replace("server_time", "read_time")
    return f"{own}local function server_time()\n  read_time()\n  return {_NOW_MS}, 0\nend\n"


def _run(redis: Redis, script: Script, batches: Iterable[tuple[list[bytes], list[bytes]]]) -> None:
    for keys, arguments in batches:
        reply: Any = redis.execute_command(*script.call, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]
        codes = {row[4] for row in reply[3:]}
        if codes != {0}:
            raise SystemExit(f"{script.name}: rows were refused: codes {codes}")


def _decided(redis: Redis, calls: Calls, rows: int, first_id: int) -> list[Decided]:
    """Decisions of so many requests that no result has settled."""
    source, decided = planned(rows, first_id), list[Decided]()
    while wanted := list(islice(source, 50)):
        batch = calls.batch(wanted)
        _run(redis, calls.script, [(list(batch.index), [calls.header, *batch.rows])])
        decided += [(waiting.request, waiting.decision) for waiting in batch.waiting]
    return decided


if __name__ == "__main__":
    main()
