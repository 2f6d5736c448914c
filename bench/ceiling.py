"""What Redis can do with the script when nothing else is in the way: ready-made commands over one blocking socket.

`python -m bench.ceiling REDIS_PORT ROWS_PER_CALL CALLS_IN_FLIGHT ROWS ID_BASE THIRD SCRIPT` is a load command (see
bench.measure): it packs ROWS requests beforehand (THIRD: whose the third limit is), sends the first fifth to warm up,
and times the rest. SCRIPT is decide, or least: the same commands without a decision. Every row must be admitted.
"""

import socket
import sys
import time

import hiredis
import msgspec

from bench.processes import HOST
from bench.rows import Calls, command, least_script

_ADMITTED = 0
_FIRST_ROW = 3
_CHUNK = 1 << 18


class Caller:
    """One socket with a fixed number of calls in flight."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def one(self, command: bytes) -> object:
        """Send one command and wait for its reply."""
        self._socket.sendall(command)
        return self._replies(1)[0]

    def _replies(self, at_least: int) -> list[object]:
        found: list[object] = []
        while True:
            reply = self._reader.gets()
            if reply is not False:
                found.append(reply)
            elif len(found) >= at_least:
                return found
            else:
                self._reader.feed(self._socket.recv(_CHUNK))

    def run(self, commands: list[bytes], in_flight: int) -> dict[str, int]:
        """Send all, `in_flight` at a time; rows by what became of them.

        :raises AssertionError: a call failed as a whole.
        """
        self._socket.sendall(b"".join(commands[:in_flight]))
        sent, answered, refused = in_flight, 0, 0
        done: dict[str, int] = {"ok": 0}
        while answered < len(commands):
            replies = self._replies(1)
            answered += len(replies)
            self._socket.sendall(b"".join(commands[sent : sent + len(replies)]))
            sent += len(replies)
            for reply in replies:
                assert isinstance(reply, list), f"the script answered {reply!r}"
                good = sum(row[4] == _ADMITTED for row in reply[_FIRST_ROW:])
                done["ok"] += good
                refused += len(reply) - _FIRST_ROW - good
        return done | ({"not_admitted": refused} if refused else {})


def main(port: int, per_call: int, in_flight: int, rows: int, id_base: int, third: str, script: str) -> None:
    """Prepare, warm up, measure, report."""
    calls, caller = Calls(least_script() if script == "least" else None), Caller(port)
    caller.one(command(*calls.script.load))
    commands = calls.commands(rows, per_call, id_base, third)
    warm = max(in_flight, len(commands) // 5)
    caller.run(commands[:warm], in_flight)
    measured = commands[warm:]
    print("START", flush=True)
    cpu, start = time.process_time(), time.perf_counter()
    done = caller.run(measured, in_flight)
    window, cpu = time.perf_counter() - start, time.process_time() - cpu
    print("END", flush=True)
    answered = len(measured) * per_call
    ok = done.pop("ok")
    report = {"answered": answered, "window_s": window, "rate": answered / window, "ok": ok, "errors": done}
    print(msgspec.json.encode(report | {"generator_cpu_s": cpu}).decode())


if __name__ == "__main__":
    port, per_call, in_flight, rows = map(int, sys.argv[1:5])
    main(port, per_call, in_flight, rows, int(sys.argv[5], 16), *sys.argv[6:8])
