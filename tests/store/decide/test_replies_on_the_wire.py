"""A lane whose server or network does something else with a call's reply: who gets which answer, and that the next row
is served.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from router.domain.decide.outcome import Admitted, Outcome, Unavailable
from router.domain.ids import name_in
from router.store.decide.calls import LaneSettings
from router.store.servers.nodes import SingleNode
from tests.fleet.harness import until
from tests.servers import ValkeyProcess
from tests.store.pods import Pod, ask, fresh_keys

PATIENT = LaneSettings(deadline_ms=10_000, retry_ms=20)
Change = Callable[[bytes], list[bytes]]


class Wire:
    """Between a pod and a server: the next reply to a call leaves as the pieces that `change` makes of it.

    An empty piece ends the connection.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self.change: Change | None = None
        self.changed = 0
        self.port = 0

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        calls: list[bool] = []
        for work in (self._up(reader, to_server, calls), self._down(from_server, writer, calls)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(lambda _: writer.close())
            task.add_done_callback(lambda _: to_server.close())

    async def _up(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, calls: list[bool]) -> None:
        while data := await source.read(1 << 20):
            calls.append(b"FCALL" in data)
            sink.write(data)

    async def _down(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, calls: list[bool]) -> None:
        while data := await source.read(1 << 20):
            pieces = [data]
            if self.change is not None and calls[-1]:
                pieces, self.change = self.change(data), None
                self.changed += 1
            for piece in pieces:
                if not piece:
                    return
                sink.write(piece)
                await sink.drain()
                await asyncio.sleep(0)


async def changed(own: ValkeyProcess, change: Change, rows: int = 1) -> tuple[list[Outcome], list[str], bool]:
    """What rows are answered whose reply is changed, what the lane reports, and whether it was down. The next row is
    served.
    """
    async with Wire(own.port) as wire:
        nodes = SingleNode(f"redis://127.0.0.1:{wire.port}/0")
        async with Pod(nodes, fresh_keys(), settings=PATIENT) as pod:
            refused: list[Any] = []
            pod.hooks.on_refused = lambda _lane, why: refused.append(why)
            assert isinstance((await pod.decide(ask()))[0], Admitted)
            wire.change = change
            asks = [ask() for _ in range(rows)]
            outcomes = await pod.decide(*asks)
            assert wire.changed == 1
            fell = pod.fell.is_set() or pod.up.is_set()
            if pod.lanes.down:
                await asyncio.wait_for(pod.up.wait(), 30)
            assert isinstance((await pod.decide(ask()))[0], Admitted)
            for asked, outcome in zip(asks, outcomes, strict=True):
                assert not isinstance(outcome, Admitted) or name_in(outcome.decision_id) == asked.plan.name
        await nodes.close()
    return outcomes, refused, fell


def bytewise(reply: bytes) -> list[bytes]:
    """One byte a piece."""
    return [reply[at : at + 1] for at in range(len(reply))]


@pytest.mark.parametrize("change", [bytewise, lambda reply: [reply[:1], reply[1:]], lambda reply: [reply[:-1], b"\n"]])
async def test_a_reply_in_pieces(own: ValkeyProcess, change: Change) -> None:
    """It is the reply that it would be in one."""
    outcomes, refused, fell = await changed(own, change, rows=3)
    assert {type(o) for o in outcomes} == {Admitted}
    assert (refused, fell) == ([], False)


@pytest.mark.parametrize(
    "change",
    [
        lambda _reply: [b""],
        lambda reply: [reply[: len(reply) // 2], b""],
        lambda reply: [reply[:-1], b""],
        lambda _reply: [b"garbage\r\n"],
        lambda reply: [reply + reply],
        lambda reply: [reply + b"+OK\r\n"],
        lambda _reply: [b"-LOADING Redis is loading the dataset in memory\r\n"],
        lambda _reply: [b"-NOAUTH Authentication required.\r\n"],
    ],
    ids=["end", "half", "one byte short", "garbage", "twice", "one more", "LOADING", "NOAUTH"],
)
async def test_a_connection_that_cannot_be_trusted(own: ValkeyProcess, change: Change) -> None:
    """The rows may have been executed; the connection is dropped, and another one serves."""
    outcomes, _, fell = await changed(own, change, rows=3)
    assert outcomes == [Unavailable(sent=True)] * 3
    assert fell


@pytest.mark.parametrize(
    "change",
    [
        lambda _reply: [b"*3\r\n:0\r\n:1\r\n:2\r\n"],
        lambda _reply: [b":1\r\n"],
        lambda _reply: [b"$-1\r\n"],
        lambda _reply: [b"*4\r\n:0\r\n:1\r\n:2\r\n$1\r\nx\r\n"],
    ],
    ids=["no rows", "a number", "nothing", "rows that are none"],
)
async def test_a_reply_of_another_shape(own: ValkeyProcess, change: Change, caplog: pytest.LogCaptureFixture) -> None:
    """A bug or a strange server: its rows are answered, it is logged, and the lane starts again."""
    outcomes, _, _ = await changed(own, change)
    assert outcomes == [Unavailable(sent=True)]
    assert "the lane broke and starts again" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "BUSY Redis is busy running a script.",
        "MISCONF Redis is configured to save RDB snapshots",
        "NOREPLICAS Not enough good replicas to write.",
        "CLUSTERDOWN The cluster is down",
        "READONLY You can't write against a read only replica.",
        "NOPERM this user has no permissions",
    ],
)
async def test_a_call_that_is_refused(own: ValkeyProcess, text: str) -> None:
    """Nothing was executed; the lane is not down, the reason is reported, and its end is, too."""
    outcomes, refused, fell = await changed(own, lambda _: [b"-%b\r\n" % text.encode()], rows=2)
    assert outcomes == [Unavailable(sent=False)] * 2
    assert not fell
    assert len(refused) == 2
    assert text.split(" ", 1)[1] in refused[0]
    assert refused[1] is None


async def test_a_function_that_is_missing(own: ValkeyProcess) -> None:
    """It is loaded, and the rows are admitted as if nothing had been."""
    outcomes, refused, fell = await changed(own, lambda _: [b"-ERR Function not found\r\n"], rows=3)
    # The first call was executed by this server: what it said of it was not true.
    assert {type(o).__name__ for o in outcomes} == {"Replay"}
    assert (refused, fell) == ([], False)


async def test_callers_that_leave_while_a_reply_arrives(own: ValkeyProcess) -> None:
    """Half of the callers are cancelled between two pieces: the others get their own decisions."""
    async with Wire(own.port) as wire:
        nodes = SingleNode(f"redis://127.0.0.1:{wire.port}/0")
        async with Pod(nodes, fresh_keys(), settings=PATIENT) as pod:
            await pod.decide(ask())
            asks = [ask(tenant=f"t{i}") for i in range(10)]
            futures = [pod.submit(a) for a in asks]

            def cancel(reply: bytes) -> list[bytes]:
                for future in futures[::2]:
                    future.cancel()
                return bytewise(reply)

            wire.change = cancel
            for a, future in list(zip(asks, futures, strict=True))[1::2]:
                outcome = await asyncio.wait_for(future, 30)
                assert isinstance(outcome, Admitted)
                assert name_in(outcome.decision_id) == a.plan.name
            assert isinstance((await pod.decide(ask()))[0], Admitted)
        await nodes.close()


async def test_an_idle_connection_that_ends_costs_no_row(own: ValkeyProcess) -> None:
    """As a server with `timeout` does it, or a load balancer: the next row is sent on another connection."""
    nodes = SingleNode(own.url)
    async with Pod(nodes, fresh_keys(), settings=PATIENT) as pod:
        await pod.decide(ask())
        await nodes.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        lane, _ = pod.lanes.of(0)
        await until(lambda: lane._link.pipeline() is None, 30, "the end of the connection")
        assert isinstance((await pod.decide(ask()))[0], Admitted)
        assert not pod.fell.is_set()
    await nodes.close()
