"""`router local` as its users start it: a process in an empty folder."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec import Struct

from tests.http_client import HttpClient

pytestmark = pytest.mark.usefixtures("servers")

USUAL_PORTS = (6379, 4222, 8080, 8180)
START_S = 90


class Ran(Struct, frozen=True):
    """What a command did."""

    code: int
    out: str
    err: str


async def router(*arguments: str, cwd: Path) -> Ran:
    """Run a command to its end."""
    process = await start(*arguments, cwd=cwd)
    out, err = await asyncio.wait_for(process.communicate(), START_S)
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def start(*arguments: str, cwd: Path) -> asyncio.subprocess.Process:
    """Start a command."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "router", *arguments),
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if not k.startswith("ROUTER_")},
    )


def left_in(folder: Path) -> list[str]:
    """Command lines of the processes that still have to do with a folder."""
    found: list[str] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if str(folder) in line or process.cwd() == str(folder):
                found.append(line)
    return found


@pytest.fixture
def usual_ports_taken() -> Iterator[None]:
    """Somebody listens on 6379, 4222 and 8080 (this test, if nobody else does)."""
    with contextlib.ExitStack() as stack:
        for port in USUAL_PORTS:
            holder = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                holder.bind(("127.0.0.1", port))
                holder.listen()
        yield


class Serving:
    """A fleet that serves."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.process = process
        self.ready: dict[str, Any] = {}
        self.said = ""

    async def until_ready(self) -> None:
        """Wait for the READY line."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async with asyncio.timeout(START_S):
            async for line in self.process.stdout:
                _, found, facts = line.partition(b"READY ")
                if found and facts.startswith(b"{"):
                    self.ready = json.loads(facts)
                    return
            pytest.fail(f"no READY line:\n{(await self.process.stderr.read()).decode()}")

    async def says(self, text: str) -> None:
        """Wait until this is said on standard error."""
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            async for line in self.process.stderr:
                if text in line.decode():
                    return
            pytest.fail(f"ended without saying {text!r}")

    def pods(self) -> dict[int, psutil.Process]:
        """Its pods by pid."""
        children = psutil.Process(self.process.pid).children()
        return {p.pid: p for p in children if p.cmdline()[-1:] == ["serve"]}

    async def end(self, number: signal.Signals) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode is not None
        return self.process.returncode


@contextlib.asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Serving]:
    """A fleet after its READY line; killed at the end if it was left running."""
    serving = Serving(folder, await start("local", cwd=folder))
    try:
        await serving.until_ready()
        yield serving
    finally:
        if serving.process.returncode is None:
            serving.process.kill()
            await serving.process.communicate()


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[Serving]:
    """A fleet that the test ends."""
    async with fleet(tmp_path) as serving:
        yield serving


@pytest.fixture(scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A fleet that these tests share."""
    async with fleet(tmp_path_factory.mktemp("fleet")) as serving:
        yield serving


@pytest.mark.usefixtures("usual_ports_taken")
async def test_it_proves_itself_twice_in_a_folder_with_the_usual_ports_taken(tmp_path: Path) -> None:
    """`local --once` says that all was seen and ends with 0, and again on the data of the first run, though 4222, 6379
    and 8080 are taken."""
    for _ in range(2):
        done = await router("local", "--once", cwd=tmp_path)
        assert done.code == 0, done.out + done.err
        assert "all 21 steps were seen" in done.err
    assert left_in(tmp_path) == []


async def test_a_step_that_is_not_seen_fails_the_command(tmp_path: Path) -> None:
    """A tenant that was switched off in an earlier run: exit code 1, the step and why, and nothing is left running."""
    async with fleet(tmp_path) as serving:
        assert (await router("tenant", "disable", "acme", cwd=tmp_path)).code == 0
        assert await serving.end(signal.SIGINT) == 0
    done = await router("local", "--once", cwd=tmp_path)
    assert done.code == 1
    assert "not proven: decision (acme)" in done.err
    assert "switched off" in done.err
    assert "READY" not in done.out
    assert left_in(tmp_path) == []


async def test_ctrl_c_before_the_proof_is_over_stops_all_of_it(tmp_path: Path) -> None:
    """Ctrl-C while servers and pods start: told, exit code 130, nothing is left running."""
    serving = Serving(tmp_path, await start("local", cwd=tmp_path))
    await serving.says("starting 2 pods")
    assert await serving.end(signal.SIGINT) == 130
    assert left_in(tmp_path) == []


async def test_ctrl_c_stops_all_of_it(mortal: Serving) -> None:
    """Ctrl-C on a serving fleet ends with 0 and leaves no process and no ready file."""
    assert (mortal.folder / ".local" / "ready.json").exists()
    assert await mortal.end(signal.SIGINT) == 0
    assert left_in(mortal.folder) == []
    assert not (mortal.folder / ".local" / "ready.json").exists()


async def test_ctrl_c_under_make_is_the_fleets_own(tmp_path: Path) -> None:
    """At a terminal, as a job of make: Ctrl-C stops all of it, and make ends with 0, not by the signal."""
    (tmp_path / "Makefile").write_text(f"run:\n\t@exec {sys.executable} -P -m router local\n")
    at_a_terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(['make', 'run'])) % 256)"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", at_a_terminal),
        cwd=tmp_path,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await Serving(tmp_path, process).until_ready()
    _, said = await asyncio.wait_for(process.communicate(b"\x03"), 60)
    assert (process.returncode, said) == (0, b"")
    assert left_in(tmp_path) == []


async def test_sigterm_stops_all_of_it(mortal: Serving) -> None:
    """SIGTERM is as good as Ctrl-C."""
    assert await mortal.end(signal.SIGTERM) == 0
    assert left_in(mortal.folder) == []


async def test_a_killed_fleet_leaves_no_orphan(mortal: Serving) -> None:
    """kill -9 of the fleet itself takes servers, pods and worker along."""
    children = psutil.Process(mortal.process.pid).children(recursive=True)
    mortal.process.kill()
    await mortal.process.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 10)
    assert alive == []


async def test_ready_says_where_everything_is(serving: Serving) -> None:
    """The READY line has the documented keys, and what it names answers."""
    facts = serving.ready
    assert {"nats", "redis", "http", "pods", "api", "api_key", "tenants", "admin_token"} <= facts.keys()
    assert facts["pods"][0] == facts["http"]
    assert facts["tenants"] == ["acme", "globex", "initech"]
    for base in facts["pods"]:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(base.rpartition(":")[2]))
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_folder_has_one_fleet(serving: Serving) -> None:
    """A second fleet in the same folder is refused, told which process has it, and leaves the first one alone."""
    done = await router("local", "--once", cwd=serving.folder)
    assert done.code == 4
    assert f"pid {serving.process.pid}" in done.err
    assert "--data-dir" in done.err
    assert (serving.folder / ".local" / "ready.json").exists()


async def test_the_command_line_finds_the_fleet(serving: Serving) -> None:
    """In the folder of a serving fleet `router decide --wait` has a task run without any address."""
    done = await router("decide", "--tenant", "acme", "--task", "chat", "--wait", "--json", cwd=serving.folder)
    assert done.code == 0, done.out + done.err
    answer = json.loads(done.out)
    assert answer["reply"]["ok"] is True
    assert answer["result"]["status"] == "success"
    request_id = answer["reply"]["context"]["request_id"]
    done = await router(
        *("audit", "query", "--tenant", "acme", "--request-id", request_id, "--json"), cwd=serving.folder
    )
    assert {"decision.made", "result.settled"} <= {e["action"] for e in json.loads(done.out)["entries"]}


async def test_a_pod_that_dies_is_started_again(serving: Serving) -> None:
    """kill -9 of a pod: it is told, and another takes its place."""
    before = serving.pods()
    victim = next(iter(before.values()))
    victim.kill()
    await serving.says("is ready again")
    after = serving.pods()
    assert len(after) == len(before)
    assert victim.pid not in after


async def test_the_api_answers_with_the_key_of_the_ready_line(serving: Serving) -> None:
    """On every pod; the key file and the key are the user's only."""
    key = serving.ready["api_key"]
    host, _, path = serving.ready["api"].removeprefix("http://").partition("/")
    async with await HttpClient.to(int(host.rpartition(":")[2])) as client:
        body = {"version": "1", "tenant_id": "acme", "request_id": "over-http", "task": {"type": "chat"}}
        reply = await client.ask("POST", f"/{path}/decide", body, authorization=f"Bearer {key}")
    assert (reply.status, reply.json["ok"]) == (200, True)
    for name in ("api_key", "api_keys.json"):
        assert stat.S_IMODE((serving.folder / ".local" / name).stat().st_mode) == 0o600
