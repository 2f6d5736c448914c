"""Child processes: started, awaited, stopped in order, and never left behind."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

STOP_S = 30.0
TAIL_LINES = 12
MIN_POLL_S, MAX_POLL_S = 0.005, 0.25


class LocalError(Exception):
    """The local fleet cannot start or continue; the message says what failed and what to do."""


class Child:
    """A running child. It dies with this process, whatever way this process dies."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self.log = log
        self.stopping = False
        self._process = process

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    async def ended(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after 30 s; returns when it is gone."""
        self.stopping = True
        if self.exit_code is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def tail(self) -> str:
        """The end of its log, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(f"  | {line}" for line in lines) or "  | (the log is empty)"


async def spawn(name: str, command: list[str], log: Path, env: Mapping[str, str] | None = None) -> Child:
    """Start a child in a session of its own (a Ctrl-C in the terminal reaches only us), its output in `log`."""
    guarded = [sys.executable, "-P", "-m", "router.local.guard", str(os.getpid()), "--", *command]
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *guarded,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=None if env is None else dict(env),
        )
    return Child(name, process, log)


async def until_ready(child: Child, ready: Callable[[], Awaitable[bool]], within_s: float) -> None:
    """Call `ready` until it returns true, at first every 5 ms, later every 250 ms.

    :raises LocalError: the child ended, or was not ready in time; with the end of its log.
    """
    give_up = time.monotonic() + within_s
    pause = MIN_POLL_S
    while True:
        if child.exit_code is not None:
            raise LocalError(f"{child.name} ended with code {child.exit_code}; from {child.log}:\n{child.tail()}")
        if await ready():
            return
        if time.monotonic() > give_up:
            raise LocalError(f"{child.name} was not ready within {within_s:g} s; from {child.log}:\n{child.tail()}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.6, MAX_POLL_S)


async def talk(port: int, question: bytes, within_s: float = 2.0) -> bytes:
    """Connect to 127.0.0.1, send, and return the first bytes of the answer; empty when there is no answer."""
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                if question:
                    writer.write(question)
                return await reader.read(65536)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
