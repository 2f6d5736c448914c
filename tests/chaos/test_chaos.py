"""A short campaign, and what the campaign itself is made of."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.bars import Bar
from tests.chaos.campaign import Campaign, Run
from tests.chaos.proxy import Proxy
from tests.chaos.report import table
from tests.chaos.schedule import WEIGHTS, schedule
from tests.fleet.harness import until

pytestmark = pytest.mark.usefixtures("servers")

SEED = 21
FAULTS = 12


def test_the_faults_follow_from_the_seed() -> None:
    """Same seed, same faults; a longer campaign begins with those of a shorter one; 20 have every kind."""
    assert schedule(SEED, 40)[:18] == schedule(SEED, 18)
    assert schedule(SEED, 18) != schedule(SEED + 1, 18)
    assert {f.kind for f in schedule(SEED, len(WEIGHTS))} == set(WEIGHTS)


def test_a_missed_bar_fails_the_run() -> None:
    """One bar that is not met: the run has not held, and the table says where."""
    run = Run(SEED, "always", 0, {}, bars=[Bar("kept", 0, 0), Bar("lost", 0, 2, ("a", "b"))])
    assert not run.held
    assert "**2, not 0**" in table([run])
    assert table([run]).endswith("lost: a, b")


async def test_a_connection_is_cut_in_the_middle_of_a_message() -> None:
    """Exactly so many bytes arrive, then the connection ends; the next one is whole."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1])
    await proxy.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        cutting = asyncio.create_task(proxy.end(0, after_bytes=3, upstream=False, hold_s=0.2, half=False))
        await asyncio.sleep(0)  # the limit is set before the next bytes come
        writer.write(b"world")
        with pytest.raises(asyncio.IncompleteReadError) as cut:
            await asyncio.wait_for(reader.readexactly(5), 5)
        assert cut.value.partial == b"wor"
        await cutting
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"again")
        assert await asyncio.wait_for(reader.readexactly(5), 5) == b"again"
        writer.close()
    finally:
        await proxy.close()
        server.close()


def alive(session: int) -> list[str]:
    """The processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _parent, _group, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found.append(stat.with_name("cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["valkey", "nats", "pod-1.log", "faults.log"])
async def test_an_interrupted_campaign_leaves_no_process(tmp_path: Path, number: signal.Signals, stage: str) -> None:
    """From its first server on, as soon as `stage` is there: all that it has started ends with it."""
    folder = tmp_path / "chaos"
    campaign = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos", "--seed", "1", "--faults", "1000", "--folder", str(folder)),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        await until((folder / "always" / stage).exists, 60, f"{stage} is there")
        campaign.send_signal(number)
        out, _ = await asyncio.wait_for(campaign.communicate(), 30)
        assert campaign.returncode == 128 + number, out.decode()
        assert b"Traceback" not in out, out.decode()
        assert alive(campaign.pid) == []
    finally:
        with suppress(ProcessLookupError):
            os.killpg(campaign.pid, signal.SIGKILL)


@pytest.mark.timeout(300)  # a drain that goes wrong takes its time, and its table is worth it
async def test_a_short_campaign_holds_every_bar(tmp_path: Path) -> None:
    """A dozen faults under load: accepted = answered, one end a task, one usage event a success, nothing left over."""
    campaign = Campaign(tmp_path / "fleet", seed=SEED, faults=FAULTS, pods=2, ack_wait_s=5, say=lambda _: None)
    run = await campaign.run()
    assert run.held, "\n" + table([run])
