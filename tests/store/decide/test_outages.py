"""A lane whose Redis is slow, frozen, full, demoted or gone: who gets which answer, and when rows are served again."""

import asyncio
import time
from pathlib import Path

import pytest
from redis import Redis

from router.domain.decide.outcome import Admitted, Unavailable
from router.errors import StoreError
from router.store.decide.calls import LaneSettings
from router.store.servers.nodes import SingleNode
from tests.chaos.proxy import Proxy
from tests.servers import ValkeyProcess, free_port
from tests.store.pods import QUICK, WAIT_DEADLINES, Pod, ask, fresh_keys

MARGIN_S = 0.5


async def test_a_frozen_redis(own: ValkeyProcess, own_pod: Pod) -> None:
    """In flight: `sent` at the deadline; behind it: not sent, at theirs; then at once. What was late wrote nothing."""
    (fine,) = await own_pod.decide(ask())
    assert isinstance(fine, Admitted)
    own.freeze()
    started = time.monotonic()
    late = await own_pod.decide(ask("late", tenant="frozen"))
    assert late == [Unavailable(sent=True)]
    assert time.monotonic() - started < QUICK.deadline_ms / 1000 + MARGIN_S
    started = time.monotonic()
    assert await own_pod.decide(*(ask() for _ in range(50))) == [Unavailable(sent=False)] * 50
    assert time.monotonic() - started < QUICK.deadline_ms / 1000 + MARGIN_S
    while not own_pod.lanes.down:  # each of these is answered at its own deadline
        assert await own_pod.decide(ask()) == [Unavailable(sent=False)]
    started = time.monotonic()
    assert await own_pod.decide(*(ask() for _ in range(50))) == [Unavailable(sent=False)] * 50
    assert time.monotonic() - started < MARGIN_S
    own.thaw()
    await asyncio.wait_for(own_pod.up.wait(), 5)
    (after,) = await own_pod.decide(ask())
    assert isinstance(after, Admitted)
    assert await own_pod.nodes.call("EXISTS", own_pod.keys.tenant("frozen").audit) == 0
    (again,) = await own_pod.decide(ask("late", tenant="frozen"))
    assert isinstance(again, Admitted)


async def test_a_lane_that_nobody_uses_notices_an_outage(own: ValkeyProcess, own_pod: Pod) -> None:
    """Killed or frozen, and back again, without one request; rows that come while it looks are answered in time."""
    await own_pod.decide(ask())
    own_pod.lanes.tick()
    assert isinstance((await own_pod.decide(ask()))[0], Admitted)
    own.freeze()
    own_pod.lanes.tick()
    waiting = own_pod.submit(ask())
    assert await asyncio.wait_for(waiting, QUICK.deadline_ms * WAIT_DEADLINES / 1000 + MARGIN_S) == Unavailable(
        sent=False
    )
    await asyncio.wait_for(own_pod.fell.wait(), 5)
    own.thaw()
    await asyncio.wait_for(own_pod.up.wait(), 5)
    await asyncio.to_thread(own.kill)
    own_pod.lanes.tick()
    await asyncio.wait_for(own_pod.fell.wait(), 5)
    await asyncio.to_thread(own.start)
    await asyncio.wait_for(own_pod.up.wait(), 5)


async def test_what_waits_behind_a_frozen_call(own: ValkeyProcess, own_pod: Pod) -> None:
    """Rows that came while a call was in flight are answered with it: nothing waits for a second deadline."""
    await own_pod.decide(ask())
    own.freeze()
    started = time.monotonic()
    first = own_pod.submit(ask())
    for _ in range(5):  # passes of the loop: the first call is on the wire by then
        await asyncio.sleep(0)
    second = own_pod.submit(ask())
    outcomes = await asyncio.wait_for(asyncio.gather(first, second), 5)
    assert outcomes[0] == Unavailable(sent=True)
    assert isinstance(outcomes[1], Unavailable)
    assert time.monotonic() - started < QUICK.deadline_ms / 1000 + MARGIN_S


async def test_what_was_answered_as_not_sent_writes_nothing(own: ValkeyProcess) -> None:
    """A row behind a late call is told in time that it was not sent; when it goes out after all, it is refused."""
    nodes = SingleNode(own.url)
    never_down = LaneSettings(deadline_ms=60, missed_until_down=1_000)
    async with Pod(nodes, fresh_keys(), settings=never_down) as pod:
        await pod.decide(ask())
        own.freeze()
        late = pod.submit(ask())
        for _ in range(5):  # passes of the loop: the first call is on the wire by then
            await asyncio.sleep(0)
        behind = pod.submit(ask("behind", tenant="behind"))
        assert await asyncio.wait_for(behind, WAIT_DEADLINES * 0.06 + MARGIN_S) == Unavailable(sent=False)
        assert await late == Unavailable(sent=True)
        own.thaw()
        assert isinstance((await pod.decide(ask()))[0], Admitted)
        assert await nodes.call("EXISTS", pod.keys.tenant("behind").audit) == 0
    await nodes.close()


async def test_a_missed_deadline_is_no_outage(own: ValkeyProcess, own_pod: Pod) -> None:
    """One hiccup: its rows are answered, and the lane refuses nobody for it."""
    await own_pod.decide(ask())
    own.freeze()
    assert await own_pod.decide(ask()) == [Unavailable(sent=True)]
    assert not own_pod.lanes.down
    own.thaw()
    assert isinstance((await own_pod.decide(ask()))[0], Admitted)


async def test_now_and_then_a_late_call_is_no_outage(own: ValkeyProcess) -> None:
    """Deadlines count in a row: calls in time between them begin it anew."""
    nodes = SingleNode(own.url)
    async with Pod(nodes, fresh_keys(), settings=QUICK) as pod:
        for _ in range(5):
            assert isinstance((await pod.decide(ask()))[0], Admitted)
            own.freeze()
            assert await pod.decide(ask()) == [Unavailable(sent=True)]
            own.thaw()
            assert isinstance((await pod.decide(ask()))[0], Admitted)
            assert not pod.lanes.down
    await nodes.close()


async def test_a_call_whose_connection_breaks_may_have_run(own: ValkeyProcess) -> None:
    """The server dies with the call on the wire: nobody can say what became of it."""
    nodes = SingleNode(own.url)
    async with Pod(nodes, fresh_keys(), settings=LaneSettings(deadline_ms=10_000)) as pod:
        await pod.decide(ask())
        own.freeze()
        future = pod.submit(ask())
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.to_thread(own.kill)
        assert await asyncio.wait_for(future, 5) == Unavailable(sent=True)
    await nodes.close()


@pytest.mark.parametrize("way_s", [0.04, 0.1])
async def test_slow_is_down(own: ValkeyProcess, way_s: float) -> None:
    """A server that answers, but always after its deadline, or after several, is away until it is quick again."""
    proxy = Proxy(own.port)
    await proxy.start()
    nodes = SingleNode(f"redis://127.0.0.1:{proxy.port}/0")
    async with Pod(nodes, fresh_keys(), settings=QUICK) as pod:
        await pod.decide(ask())
        slow = asyncio.create_task(proxy.delay(way_s, 1.5))
        while not pod.lanes.down:
            assert isinstance((await pod.decide(ask()))[0], Unavailable)
        pod.up.clear()
        await asyncio.wait_for(pod.up.wait(), 5)
        assert slow.done()
        assert isinstance((await pod.decide(ask()))[0], Admitted)
    await nodes.close()
    await proxy.close()


async def test_a_killed_redis_comes_back(own: ValkeyProcess, own_pod: Pod) -> None:
    """kill -9: answers are quick and say that nothing was sent; a new server at the address is used by itself."""
    await own_pod.decide(ask())
    await asyncio.to_thread(own.kill)
    started = time.monotonic()
    (gone,) = await own_pod.decide(ask())
    assert isinstance(gone, Unavailable)
    assert await own_pod.decide(ask()) == [Unavailable(sent=False)]
    assert time.monotonic() - started < MARGIN_S
    own_pod.up.clear()
    await asyncio.to_thread(own.start)
    await asyncio.wait_for(own_pod.up.wait(), 5)
    (back,) = await own_pod.decide(ask())
    assert isinstance(back, Admitted)


async def test_nobody_listens_at_boot(servers: None, tmp_path: Path) -> None:
    """Opening returns, decides are refused at once, and the server that comes later is found."""
    server = ValkeyProcess(tmp_path, port=free_port())
    nodes = SingleNode(server.url)
    async with Pod(nodes, fresh_keys(), settings=QUICK) as pod:
        assert pod.lanes.down
        assert await pod.decide(ask()) == [Unavailable(sent=False)]
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(pod.up.wait(), 5)
        (made,) = await pod.decide(ask())
        assert isinstance(made, Admitted)
    await nodes.close()
    await asyncio.to_thread(server.stop)


async def test_a_demoted_server_is_left(own: ValkeyProcess, tmp_path: Path) -> None:
    """A primary that becomes a replica keeps its connections: after the first refusal the address is asked anew."""
    successor = ValkeyProcess(tmp_path / "successor")
    await asyncio.to_thread(successor.start)
    proxy = Proxy(own.port)
    await proxy.start()
    nodes = SingleNode(f"redis://127.0.0.1:{proxy.port}/0")
    try:
        async with Pod(nodes, fresh_keys(), settings=QUICK) as pod:
            assert isinstance((await pod.decide(ask()))[0], Admitted)
            await nodes.call("SET", "probe", "1")
            with Redis(port=own.port) as old:
                old.execute_command("REPLICAOF", "127.0.0.1", str(successor.port))
            proxy.lead_to(successor.port)
            assert await pod.decide(ask()) == [Unavailable(sent=False)]
            async with asyncio.timeout(30):  # a slow machine misses deadlines of 60 ms
                while isinstance((await pod.decide(ask()))[0], Unavailable):
                    pass
            with pytest.raises(StoreError):
                await nodes.call("SET", "probe", "2")
            await nodes.call("SET", "probe", "2")
    finally:
        await nodes.close()
        await proxy.close()
        await asyncio.to_thread(successor.stop)


async def test_closing_answers_whoever_waits(own: ValkeyProcess, own_pod: Pod) -> None:
    """A pod that closes its lanes leaves no caller without an answer."""
    await own_pod.decide(ask())
    own.freeze()
    futures = [own_pod.submit(ask()) for _ in range(5)]
    for _ in range(5):  # passes of the loop: these are on the wire, the next ones wait behind them
        await asyncio.sleep(0)
    futures += [own_pod.submit(ask()) for _ in range(5)]
    await own_pod.lanes.close()
    outcomes = await asyncio.wait_for(asyncio.gather(*futures), 2)
    assert {type(o) for o in outcomes} == {Unavailable}


async def test_a_full_redis_is_away(own: ValkeyProcess, own_pod: Pod) -> None:
    """Out of memory: the call is refused as a whole, nothing was written, and the lane is not broken."""
    await own_pod.decide(ask())
    await own_pod.nodes.call("CONFIG", "SET", "maxmemory", 1)
    assert await own_pod.decide(ask(tenant="full")) == [Unavailable(sent=False)]
    await own_pod.nodes.call("CONFIG", "SET", "maxmemory", 0)
    assert await own_pod.nodes.call("EXISTS", own_pod.keys.tenant("full").audit) == 0
    assert isinstance((await own_pod.decide(ask()))[0], Admitted)


async def test_a_full_node_that_leaves_is_away_no_longer(own_pod: Pod) -> None:
    """What it refused is no outage of those that stay."""
    told: list[str | None] = []
    own_pod.hooks.on_refused = lambda _lane, why: told.append(why)
    await own_pod.decide(ask())
    await own_pod.nodes.call("CONFIG", "SET", "maxmemory", 1)
    await own_pod.decide(ask(tenant="full"))
    assert len(told) == 1
    assert "maxmemory" in (told[0] or "")
    lane, _ = own_pod.lanes.of(0)
    await lane.retire()
    assert told[1:] == [None]


async def test_late_rows_are_counted(own: ValkeyProcess) -> None:
    """A row that comes after its `not_after` is told to the hook, so that the metric of that name is true."""
    nodes = SingleNode(own.url)
    async with Pod(nodes, fresh_keys(), settings=QUICK) as pod:
        late: list[int] = []
        pod.hooks.on_late = lambda: late.append(1)
        await pod.decide(ask())
        assert late == []
        lane, _ = pod.lanes.of(pod.keys.tenant("acme").partition)
        lane._clock.offset_ms = 0.0  # an idea of Redis time that is decades old: every row is late, once
        (outcome,) = await pod.decide(ask())
        assert isinstance(outcome, Admitted)
        assert late == [1]
    await nodes.close()
