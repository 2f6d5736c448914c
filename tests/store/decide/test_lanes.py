"""The way of decide rows: one round trip a tick, batches, bounds, and replies that reach only their caller."""

import asyncio
import time
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from msgspec import msgpack
from msgspec.structs import replace
from redis import Redis

from router.domain.audit.records import TaskFeatures
from router.domain.decide.outcome import Admitted, Outcome, Replay, RowFault, Unavailable
from router.domain.ids import name_in, task_id
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Sticky
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.tasks.task import Action, Move, Moved, TaskRecord, TaskState
from router.errors import StartupRefused
from router.installed_files import lua_dir
from router.store.decide.calls import MAX_LIBRARIES, LaneSettings
from router.store.decisions import decide_script
from router.store.keys import Keys
from router.store.scripts.load import Script
from router.store.servers.meta import RedisMeta
from router.store.servers.nodes import SingleNode
from router.store.tasks.store import RedisTasks
from tests.servers import ValkeyProcess
from tests.store.harness import MINUTE, Ask, policy, request
from tests.store.pods import PLAIN, Pod, ask, fresh_keys

MARGIN_S = 0.5
FULL = policy(
    "a",
    "b",
    limits=[limit(s, s, Resource.REQUESTS, 10_000, MINUTE) for s in (Scope.TENANT, Scope.USER, Scope.POLICY)],
    breaker=Breaker(),
    sticky=Sticky(),
)


_CONNECTING = {"CLIENT", "HELLO", "AUTH", "SELECT"}


class Heard:
    """What clients sent to a server (not what scripts called) while the block ran."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.commands: list[str] = []

    async def __aenter__(self) -> "Heard":
        # A server's first call would load the script as well.
        self.client.execute_command(*decide_script().load)  # type: ignore[no-untyped-call]
        self.monitor = self.client.monitor().__enter__()  # type: ignore[no-untyped-call]
        return self

    async def __aexit__(self, *_: object) -> None:
        mark = uuid4().hex
        self.client.echo(mark)
        await asyncio.to_thread(self._read, mark)
        self.monitor.__exit__(None, None, None)

    def _read(self, mark: str) -> None:
        while True:
            heard: dict[str, str] = self.monitor.next_command()
            if mark in heard["command"]:
                return
            command = heard["command"].split()[0].upper()
            if heard["client_type"] != "lua" and command not in _CONNECTING:
                self.commands.append(command)


# Round trips


async def test_one_decide_is_one_round_trip(pod: Pod, single: Redis) -> None:
    """Limits, breaker, pin, idempotency and audit: exactly one call and nothing else."""
    async with Heard(single) as heard:
        (outcome,) = await pod.decide(Ask(request("acme", "r", session="s", user="u"), FULL))
    assert isinstance(outcome, Admitted)
    assert heard.commands == ["FCALL"]


async def test_all_of_a_tick_share_one_round_trip(pod: Pod, single: Redis) -> None:
    """A hundred callers of eight tenants in one tick: one call."""
    asks = [Ask(request(f"tenant{i % 8}", f"r{i}", session=f"s{i}", user=f"u{i}"), FULL) for i in range(100)]
    async with Heard(single) as heard:
        outcomes = await pod.decide(*asks)
    assert {type(o) for o in outcomes} == {Admitted}
    assert heard.commands == ["FCALL"]
    assert pod.calls == [100]


async def test_a_pushed_decide_adds_its_work_item_only(pod: Pod, single: Redis) -> None:
    """A pushed row is a SET and the call, in one pipeline."""
    async with Heard(single) as heard:
        await pod.decide(Ask(request("acme", "r", push=True), PLAIN, b"work"))
    assert heard.commands == ["SET", "FCALL"]


async def test_a_call_has_a_bound(redis_url: str) -> None:
    """More rows than max_rows go in several calls, and all are answered."""
    nodes = SingleNode(redis_url)
    async with Pod(nodes, fresh_keys(), settings=LaneSettings(deadline_ms=1000, max_rows=40)) as pod:
        outcomes = await pod.decide(*(ask() for _ in range(100)))
        assert {type(o) for o in outcomes} == {Admitted}
        assert sum(pod.calls) == 100
        assert max(pod.calls) <= 40
    await nodes.close()


async def test_a_call_has_a_bound_in_bytes(redis_url: str) -> None:
    """Rows that are large go in several calls, though few."""
    nodes = SingleNode(redis_url)
    async with Pod(nodes, fresh_keys(), settings=LaneSettings(deadline_ms=1000, max_bytes=8_192)) as pod:
        outcomes = await pod.decide(*(ask(uuid4().hex * 8) for _ in range(100)))
        assert {type(o) for o in outcomes} == {Admitted}
        assert sum(pod.calls) == 100
        assert max(pod.calls) < 50
    await nodes.close()


async def test_a_call_has_a_bound_in_time(redis_url: str) -> None:
    """Once it is known what a row costs, no call has more rows than fit its budget, and never less than a few."""
    nodes = SingleNode(redis_url)
    async with Pod(nodes, fresh_keys(), settings=LaneSettings(deadline_ms=1000, call_budget_ms=0.001)) as pod:
        await pod.decide(*(ask() for _ in range(100)))
        assert pod.calls == [100]
        await pod.decide(*(ask() for _ in range(100)))
        assert pod.calls == [100, 32, 32, 32, 4]
    await nodes.close()


async def test_what_comes_during_a_call_goes_with_the_next(pod: Pod) -> None:
    """Everything is answered, each caller with a decision under its own request's name."""
    rounds = []
    for _ in range(20):
        asks = [ask() for _ in range(7)]
        rounds.append((asks, [pod.submit(a) for a in asks]))
        await asyncio.sleep(0)
    for asks, futures in rounds:
        for a, outcome in zip(asks, await asyncio.gather(*futures), strict=True):
            assert isinstance(outcome, Admitted)
            assert name_in(outcome.decision_id) == a.plan.name


# Callers


async def test_a_cancelled_caller_shifts_no_reply(pod: Pod) -> None:
    """Half of the callers go away while their rows are on the wire: the others get their own decisions."""
    for _ in range(10):
        asks = [ask(tenant=f"t{i}") for i in range(40)]
        futures = [pod.submit(a) for a in asks]
        await asyncio.sleep(0)
        for future in futures[::2]:
            future.cancel()
        for a, future in list(zip(asks, futures, strict=True))[1::2]:
            outcome = await asyncio.wait_for(future, 5)
            assert isinstance(outcome, Admitted)
            assert name_in(outcome.decision_id) == a.plan.name


async def test_a_caller_that_raises_costs_nobody_an_answer(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in one caller's callback is logged; its neighbours and the next tick are answered."""

    def bug(_outcome: Outcome, _stamp: bytes) -> None:
        raise RuntimeError("a bug of the caller")

    before, broken, after = ask(), ask(), ask()
    futures = [pod.submit(before)]
    pod.decisions.decide(broken.request, broken.plan, None, bug)
    futures.append(pod.submit(after))
    outcomes = await asyncio.wait_for(asyncio.gather(*futures), 5)
    assert {type(o) for o in outcomes} == {Admitted}
    assert "a bug of the caller" in caplog.text
    assert isinstance((await pod.decide(ask()))[0], Admitted)


@pytest.mark.parametrize(
    "rest", [b"", b"\xff\xff\xff", b"\x00\x00\x00\x01\x00\x80", b"\x00\x00\x00\x01\x63\x01\x01\x01a"]
)
async def test_a_remembered_answer_that_cannot_be_read(pod: Pod, single: Redis, rest: bytes) -> None:
    """A replay of a damaged answer is that row's fault; its neighbours are answered."""
    broken = ask("broken")
    key = pod.keys.tenant("acme").idem(broken.plan.name)
    single.set(key, b"\x01" + broken.request.fingerprint + rest)
    before, fault, after = await pod.decide(ask(), broken, ask())
    assert isinstance(before, Admitted)
    assert isinstance(fault, RowFault)
    assert isinstance(after, Admitted)


async def test_a_reply_for_another_row_is_never_handed_out(redis_url: str, tmp_path: Path) -> None:
    """Replies in a wrong order: nobody gets another's answer, everybody gets one, and the lane goes on."""
    swap = "if #replies > 4 then replies[4], replies[5] = replies[5], replies[4] end\nreturn replies"
    swapped = altered(tmp_path, "return replies", swap)
    nodes = SingleNode(redis_url)
    async with Pod(nodes, fresh_keys(), script=swapped) as pod:
        outcomes = await pod.decide(*(ask() for _ in range(4)))
        assert outcomes == [Unavailable(sent=True)] * 4
        assert isinstance((await pod.decide(ask()))[0], Admitted)
    await nodes.close()


async def test_a_script_that_breaks_may_have_run(redis_url: str, tmp_path: Path) -> None:
    """An error of the script itself, after its rows: nobody is told that nothing was sent, and a retry is a replay."""
    script = altered(tmp_path, "return replies", "error('a bug')")
    nodes = SingleNode(redis_url)
    keys = fresh_keys()
    wanted = ask()
    async with Pod(nodes, keys, script=script) as broken:
        assert await broken.decide(wanted) == [Unavailable(sent=True)]
    async with Pod(nodes, keys) as pod:
        assert isinstance((await pod.decide(wanted))[0], Replay)
    await nodes.close()


def altered(folder: Path, old: str, new: str) -> Script:
    """The decide script with a change, as a version of its own."""
    made = folder / "lua"
    copytree(lua_dir(), made)
    text = (made / "decide.lua").read_text()
    assert text.count(old) == 1
    (made / "decide.lua").write_text(text.replace(old, new))
    return decide_script(folder=made)


# Jobs


async def test_work_items_that_nobody_needs_are_unlinked(pod: Pod, single: Redis) -> None:
    """The work items of a replay and of a refusal go at once; that of the dispatched row stays."""
    none = policy("a", limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 1, MINUTE)])
    first = Ask(request("acme", "r", push=True), none, b"work")
    made, replayed, refused = await pod.decide(first, first, Ask(request("acme", "s", push=True), none, b"work"))
    assert isinstance(made, Admitted)
    assert isinstance(replayed, Replay)
    assert not isinstance(refused, Admitted)
    await pod.decide(ask())
    jobs = list(single.scan_iter(f"{pod.keys.schema}:*:job:*"))
    assert len(jobs) == 1


# Redis in trouble


async def test_a_forgotten_script_is_loaded_again(pod: Pod, single: Redis) -> None:
    """After SCRIPT FLUSH and FUNCTION FLUSH the next decides are answered as if nothing had been."""
    await pod.decide(ask())
    single.script_flush()
    single.function_flush()
    outcomes = await pod.decide(*(ask() for _ in range(5)))
    assert {type(o) for o in outcomes} == {Admitted}


async def test_a_node_keeps_few_versions(own: ValkeyProcess) -> None:
    """Libraries of many versions are taken off; a pod of one of those loads its own again and is answered."""
    with Redis(port=own.port) as client:
        for n in range(MAX_LIBRARIES):
            client.function_load(f"#!lua name=router_old{n}\nredis.register_function('old{n}', function() end)")
        client.function_load("#!lua name=another\nredis.register_function('another', function() end)")
        nodes = SingleNode(own.url)
        async with Pod(nodes, fresh_keys()) as pod:
            wanted = ask()
            assert isinstance((await pod.decide(wanted))[0], Admitted)
            left: Any = client.function_list()
            assert {x[1] for x in left} == {b"another", decide_script().call[1]}
            client.function_delete(decide_script().call[1].decode())
            assert isinstance((await pod.decide(wanted))[0], Replay)
        await nodes.close()


@pytest.mark.parametrize("wrong", [0.0, 4e9])
async def test_the_pods_own_clock_does_not_count(pod: Pod, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    """Once Redis has told its time, a pod whose clock is years behind or ahead decides as any other."""
    await pod.decide(ask())
    monkeypatch.setattr("router.store.decide.clock.time", SimpleNamespace(time=lambda: wrong))
    assert isinstance((await pod.decide(ask()))[0], Admitted)
    assert abs(pod.lanes.of(0)[0].now_ms() - time.time() * 1000) < 60_000


# The store's own record


async def test_another_number_of_partitions_is_refused(redis_url: str) -> None:
    """The number is fixed by the first pod; one with another number must not run, and the message says what to set."""
    nodes = SingleNode(redis_url)
    schema = fresh_keys().schema
    assert await RedisMeta(Keys(schema, 64), nodes).ensure() is True
    assert await RedisMeta(Keys(schema, 64), nodes).ensure() is False
    with pytest.raises(StartupRefused, match="set it to 64"):
        await RedisMeta(Keys(schema, 32), nodes).ensure()
    await nodes.close()


# The next attempt


async def test_the_next_attempt_of_a_task(pod: Pod, single: Redis) -> None:
    """A task that waits gets its next attempt once; a second pod's try is a conflict that takes nothing away; no try
    adds to the request's limit."""
    slots = limit("c", Scope.TENANT, Resource.CONCURRENCY, 1, 0)
    one = policy("a", "b", limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 1, MINUTE), slots])
    first = Ask(request("acme", "r", push=True), one, b"work")
    (made,) = await pod.decide(first)
    assert isinstance(made, Admitted)
    task = task_id(made.decision_id)
    tasks = RedisTasks(pod.keys, pod.nodes)
    features = msgpack.encode(TaskFeatures("r", "default", 1, "a", None, None, None))
    waiting = Move(
        "acme",
        made.decision_id,
        Action.RESULT_SETTLED,
        features,
        task_id=task,
        attempt=1,
        before_state=TaskState.WAITING,
        state=TaskState.WAITING,
        due_ms=pod.decisions.now_ms("acme") + 1_000,
    )
    (moved,) = await tasks.move([waiting])
    assert isinstance(moved, Moved)
    (record,) = await tasks.records([task])
    assert isinstance(record, TaskRecord)

    leases = tuple(c for c in first.plan.charges if c.limit.resource is Resource.CONCURRENCY)
    again = replace(first.plan, charges=leases)

    async def next_attempt() -> Outcome:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        pod.decisions.next_attempt(first.request, again, record, b"work", lambda o, _s: answered.set_result(o))
        return await asyncio.wait_for(answered, 5)

    outcomes = await asyncio.gather(next_attempt(), next_attempt())
    assert sorted(type(o).__name__ for o in outcomes) == ["Admitted", "Conflict"]
    await pod.decide(ask())
    (record_now,) = await tasks.records([task])
    assert isinstance(record_now, TaskRecord)
    assert (record_now.attempt, record_now.state) == (2, TaskState.NEW)
    assert single.get(pod.keys.job(task)) == b"work"
    assert single.ttl(pod.keys.job(task)) > 60
    (limited,) = await pod.decide(Ask(request("acme", "other"), one))
    assert not isinstance(limited, Admitted)


async def test_a_lane_that_nobody_uses_follows_redis_time(redis_url: str) -> None:
    """Moments of tasks are dated by it: its look asks for the time, so an hour's error is gone with the next one."""
    nodes = SingleNode(redis_url)
    async with Pod(nodes, fresh_keys()) as pod:
        lane, _ = pod.lanes.of(0)
        right = lane.now_ms()
        for error_ms in (3_600_000.0, -3_600_000.0):
            assert lane._clock.offset_ms is not None
            lane._clock.offset_ms += error_ms
            lane.tick()
            async with asyncio.timeout(5):
                while abs(lane.now_ms() - right) > 60_000:
                    await asyncio.sleep(0.01)
                    lane.tick()
    await nodes.close()


async def test_who_looks_while_a_lane_opens_does_not_share_its_link(redis_url: str) -> None:
    """A pod's ticker may look at any moment: the first connection is one coroutine's."""
    nodes = SingleNode(redis_url)
    pod = Pod(nodes, fresh_keys())
    lane, _ = pod.lanes.of(0)
    opening = asyncio.create_task(lane.open())
    for _ in range(20):
        lane.tick()
        await asyncio.sleep(0)
    await opening
    assert not lane.down
    (outcome,) = await pod.decide(Ask(request("t", "r"), PLAIN))
    assert isinstance(outcome, Admitted)
    await pod.lanes.close()
    await nodes.close()
