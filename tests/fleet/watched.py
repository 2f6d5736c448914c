"""`python watched.py serve`: the command `router`, which writes down what blocks its event loop, from SIGUSR1 on.

What the interpreter audits is what counts: files that are opened or listed, names that are looked up, processes that
are started, sleeps. Each place is written once, as a line of JSON, to the file that WATCHED_BLOCKS names.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import traceback
from types import FrameType

BLOCKING = frozenset(
    {
        "open",
        "time.sleep",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "subprocess.Popen",
        "os.fork",
        "os.posix_spawn",
        "os.system",
        "os.listdir",
        "os.scandir",
        "os.mkdir",
        "os.rename",
        "os.remove",
        "import",
    }
)


class Watch:
    """An audit hook for one thread, the event loop's."""

    def __init__(self, path: str) -> None:
        self._out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._thread = threading.get_ident()
        self._seen: set[tuple[str, str]] = set()
        self._armed = self._inside = False

    def arm(self, _signal: int, _frame: FrameType | None) -> None:
        """From now on."""
        self._armed = True
        os.write(self._out, b"armed\n")

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        """The hook."""
        if not self._armed or self._inside or event not in BLOCKING or threading.get_ident() != self._thread:
            return
        if asyncio._get_running_loop() is None:
            return
        self._inside = True
        try:
            places = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_stack(limit=12)[:-1]]
            key = (event, places[-1] if places else "")
            if key not in self._seen:
                self._seen.add(key)
                told = json.dumps({"event": event, "args": repr(args)[:200], "at": places})
                os.write(self._out, told.encode() + b"\n")
        finally:
            self._inside = False


if __name__ == "__main__":
    watch = Watch(os.environ.pop("WATCHED_BLOCKS"))
    signal.signal(signal.SIGUSR1, watch.arm)
    sys.addaudithook(watch)
    from router.cli import main

    main()
