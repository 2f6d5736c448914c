"""The longest wait of a row: whatever keeps Redis from answering, its caller has an answer by then."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.domain.decide.outcome import Admitted, Outcome, Unavailable
from router.store.decide.calls import LaneSettings
from router.store.decide.rows import RowPacker
from router.store.servers.link import Link
from router.store.servers.nodes import SingleNode
from router.store.servers.pipeline import Pipeline, Receiver
from tests.servers import ValkeyProcess
from tests.store.pods import WAIT_DEADLINES, Pod, ask, fresh_keys

SLOW = LaneSettings(deadline_ms=5_000, missed_until_down=1_000)
QUICK = LaneSettings(deadline_ms=60, missed_until_down=1_000)
WAIT_S = WAIT_DEADLINES * QUICK.deadline_ms / 1000
MARGIN_S = 0.5


@pytest.fixture
def own(servers: None, tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A server that the test may freeze."""
    with ValkeyProcess(tmp_path) as server:
        yield server


async def test_time_that_a_request_has_waited_before_counts(own: ValkeyProcess) -> None:
    """Its row is answered when the request's own time is over, although the call may take long, and the rows beside it
    wait on.
    """
    nodes = SingleNode(own.url)
    async with Pod(nodes, fresh_keys(), settings=SLOW) as pod:
        await pod.decide(ask())
        own.freeze()
        now = asyncio.get_running_loop().time()
        fresh = pod.submit(ask())
        waited = [pod.submit(ask(), since=now - WAIT_DEADLINES * 5 + left) for left in (0.3, 0.05, -1.0)]
        for _ in range(5):  # passes of the loop: the first call is on the wire by then
            await asyncio.sleep(0)
        behind = pod.submit(ask(), since=now - WAIT_DEADLINES * 5 + 0.1)
        outcomes = await asyncio.wait_for(asyncio.gather(*waited, behind), 0.3 + MARGIN_S)
        assert {type(x) for x in outcomes} == {Unavailable}
        assert outcomes[0] == Unavailable(sent=True)
        assert outcomes[3] == Unavailable(sent=False)
        assert not fresh.done()
        own.thaw()
        assert isinstance(await asyncio.wait_for(fresh, 5), Admitted)
    await nodes.close()


async def test_a_row_that_waits_for_a_connection_is_answered_in_time(own: ValkeyProcess) -> None:
    """A frozen Redis accepts connections, and answers no handshake for a second."""
    nodes = SingleNode(own.url)
    pod = Pod(nodes, fresh_keys(), settings=QUICK)
    own.freeze()
    first, second = pod.submit(ask()), pod.submit(ask())
    outcomes = list(await asyncio.wait_for(asyncio.gather(first, second), WAIT_S + MARGIN_S))
    assert outcomes == [Unavailable(sent=False)] * 2
    own.thaw()
    await pod.lanes.close()
    await nodes.close()


async def test_a_reply_does_not_wait_for_the_write_behind_it(
    own: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply of one call is there, and the next call cannot be written: its caller has the answer, and the caller of
    the next call gets one in time.
    """
    nodes = SingleNode(own.url)
    async with Pod(nodes, fresh_keys(), settings=QUICK) as pod:
        await pod.decide(ask())
        calls: list[asyncio.Future[Outcome]] = []
        send = Pipeline.send

        def second_is_stuck(self: Pipeline, data: bytes, replies: int, receiver: Receiver) -> None:
            if len(calls) == 2:
                send(self, b"", replies, receiver)
                return
            calls.append(pod.submit(ask()))  # while the first call is written, so that its reply finds a next one
            send(self, data, replies, receiver)

        monkeypatch.setattr(Pipeline, "send", second_is_stuck)
        calls.append(pod.submit(ask()))
        assert isinstance(await asyncio.wait_for(calls[0], WAIT_S + MARGIN_S), Admitted)
        assert await asyncio.wait_for(calls[1], WAIT_S + MARGIN_S) == Unavailable(sent=True)
    await nodes.close()


async def test_a_write_that_nobody_reads_ends(own: ValkeyProcess) -> None:
    """More than the sockets hold, to a frozen Redis: the write gives up, and the lane serves again after the thaw."""
    nodes = SingleNode(own.url)
    async with Pod(nodes, fresh_keys(), settings=LaneSettings(deadline_ms=60, retry_ms=20)) as pod:
        await pod.decide(ask())
        own.freeze()
        lane, _ = pod.lanes.of(0)
        rows = [pod.submit(ask()) for _ in range(3)]
        await asyncio.wait_for(asyncio.gather(*rows), WAIT_S + MARGIN_S)
        link = Link(nodes.connections(None), 0.2)
        own.thaw()
        await link.ask([("PING",)])
        own.freeze()
        with pytest.raises(Exception, match="nothing was read in time"):
            await asyncio.wait_for(link.ask([("ECHO", bytes(64 << 20))]), 5)
        own.thaw()
        link.close()
        await asyncio.wait_for(pod.up.wait(), 5) if lane.down else None
        assert isinstance((await pod.decide(ask()))[0], Admitted)
    await nodes.close()


@pytest.mark.parametrize("refusal", ["the lane is down", "the row cannot be packed"])
async def test_a_row_that_is_refused_at_once_is_answered_once(
    own: ValkeyProcess, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    """Also when it had waited before: its own deadline, which comes later, finds it answered."""

    def cannot(*_: object) -> None:
        raise ValueError("too large")

    nodes = SingleNode(own.url)
    async with Pod(nodes, fresh_keys(), settings=LaneSettings(deadline_ms=60, missed_until_down=1)) as pod:
        await pod.decide(ask())
        if refusal == "the lane is down":
            own.kill()
            pod.submit(ask())
            await asyncio.wait_for(pod.fell.wait(), 5)
        else:
            monkeypatch.setattr(RowPacker, "add", cannot)
        told: list[Outcome] = []
        one, loop = ask(), asyncio.get_running_loop()
        pod.decisions.decide(one.request, one.plan, one.job, lambda outcome, _: told.append(outcome), loop.time())
        later: asyncio.Future[None] = loop.create_future()
        loop.call_later(WAIT_DEADLINES * 0.06 + 0.1, later.set_result, None)  # its deadline has passed by then
        await later
        assert len(told) == 1, told
    await nodes.close()
