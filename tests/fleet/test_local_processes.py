"""Children of the local fleet: none outlives it."""

import asyncio
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from router.local.processes import LocalError, spawn, until_ready
from router.local.servers import free_port

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
PARENT = """
import asyncio, sys
from pathlib import Path
from router.local.processes import spawn

async def main():
    child = await spawn("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], Path(sys.argv[1]))
    print(child.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def gone(pid: int) -> bool:
    """Whether the process ends within ten seconds."""
    try:
        await asyncio.to_thread(psutil.Process(pid).wait, 10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


async def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """kill -9 of the fleet takes its children along."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(tmp_path / "log")), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 10))
    parent.kill()
    await parent.wait()
    assert await gone(child)


async def test_a_watched_child_dies_with_its_parent(tmp_path: Path) -> None:
    """Where the kernel does not help, the watch kills the child when its parent is gone."""
    code = f"from router.local.guard import watch; watch(1_000_000_000, {SLEEPER!r})"
    watcher = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await asyncio.wait_for(watcher.wait(), 20) == 0


async def test_a_watched_child_gets_the_signals(tmp_path: Path) -> None:
    """The watch passes SIGTERM on and ends with the child."""
    child = "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); signal.pause()"
    watched = [sys.executable, "-c", child]
    code = f"import os, sys; from router.local.guard import watch; sys.exit(watch(os.getppid(), {watched}))"
    watcher = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert watcher.stdout is not None
    await asyncio.wait_for(watcher.stdout.readline(), 10)
    watcher.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(watcher.wait(), 10) == 7


async def test_stop_ends_a_child_in_order(tmp_path: Path) -> None:
    """Stopping sends SIGTERM and waits."""
    child = await spawn("sleeper", SLEEPER, tmp_path / "log")
    await child.stop()
    assert child.exit_code == -signal.SIGTERM


async def test_a_child_that_ends_early_is_told_with_its_log(tmp_path: Path) -> None:
    """A child that ends instead of getting ready is reported with its exit code and the end of its log."""
    child = await spawn("crasher", [sys.executable, "-c", "raise SystemExit('no such luck')"], tmp_path / "log")

    async def never() -> bool:
        return False

    with pytest.raises(LocalError, match=r"(?s)crasher ended with code 1.*no such luck"):
        await until_ready(child, never, 10)


async def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A command that cannot be started is named in the log, and the code is 127."""
    child = await spawn("nobody", ["/nowhere/at-all"], tmp_path / "log")
    assert await asyncio.wait_for(child.ended(), 10) == 127
    assert "/nowhere/at-all" in child.tail()


def test_a_taken_port_is_passed_by() -> None:
    """When the usual port is taken another one is found."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert free_port(taken) != taken
