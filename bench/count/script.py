"""Instructions of lua/decide.lua per row, in a real server: `python -m bench.count.script FOLDER`, with the valgrind
command behind it.

Counted is what the server does in the command FCALL, script and inner commands included; not the socket and not the
server's own timers. The script's clock stands still: otherwise the buckets of a limit would roll in calls that a slower
machine makes later. Each load first runs uncounted with the same requests under other ids, so that states and pins are
there. ECHO makes callgrind write a dump: one for each warm-up, one for each load. Standard output gets a line of
JSON: load → rows that were counted.
"""

import json
import sys
from pathlib import Path

from redis import Redis

from bench.processes import HOST, start_valkey
from bench.rows import Calls
from router.installed_files import lua_dir
from router.store.decisions import decide_script

LOADS = {"script 128": (128, 6), "script 1": (1, 200)}
"""Rows a call, and the calls that are counted."""
_NOW_MS = 1_800_000_000_000
TIMEOUT_S = 120


def main() -> None:
    """Count every load."""
    folder, *under = sys.argv[1:]
    server, port = start_valkey(Path(folder), "any", appendfsync=None, under=under, timeout_s=TIMEOUT_S)
    try:
        redis = Redis(HOST, port, socket_timeout=TIMEOUT_S)
        calls = Calls(decide_script(replace={"clock": still_clock()}))
        redis.execute_command(*calls.script.load)  # type: ignore[no-untyped-call]
        first_id = 0
        for name, (rows, count) in LOADS.items():
            for dump in (f"warm {name}", name):
                _run(redis, calls, rows, count, first_id)
                redis.echo(dump)
                first_id += 1 << 20
    finally:
        server.stop()
    print(json.dumps({name: rows * count for name, (rows, count) in LOADS.items()}))


def still_clock() -> str:
    """The script's own clock, whose time is read and not used."""
    own = (lua_dir() / "include" / "clock.lua").read_text().replace("server_time", "read_time")
    return f"{own}local function server_time()\n  read_time()\n  return {_NOW_MS}, 0\nend\n"


def _run(redis: Redis, calls: Calls, rows: int, count: int, first_id: int) -> None:
    for keys, arguments in calls.batches(rows * count, rows, first_id):
        reply = redis.execute_command(*calls.script.call, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]
        codes = {row[4] for row in reply[3:]}
        if codes != {0}:
            raise SystemExit(f"rows were not admitted: codes {codes}")


if __name__ == "__main__":
    main()
