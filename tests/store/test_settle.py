"""lua/settle.lua, claim, begin_epoch, end_epoch: tasks move only forward, and every act happens once."""

import struct
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from router.domain.decide.outcome import Admitted, LimitHit, Replay, Reservation
from router.domain.decide.request import Options
from router.domain.ids import name_in, partition_in
from router.domain.policy.limits import limit
from router.domain.policy.model import Limit, provider, provider_entry
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import Action, BreakerTurn, Correction, Final, Move, Moved, MoveFault, NotMoved, TaskState
from router.store.keys import Keys
from router.store.packing import FormatError
from router.store.servers.meta import RedisEpochs
from router.store.servers.nodes import SingleNode
from router.store.tasks.records import final_in
from router.store.tasks.store import RedisTasks, settle_script
from tests.store.failing import EACH_CALL, FAILING
from tests.store.harness import FEATURES, MINUTE, TEST_CLOCK, Store, policy, request, undispatched
from tests.store.tasks import DEADLINE, KEEP, TRIP, Task, correction


def tokens_limit(maximum: int = 100) -> Limit:
    """A limit on the tenant's tokens."""
    return limit("t", Scope.TENANT, Resource.TOKENS, maximum, MINUTE)


# Forward only


def test_a_task_moves_forward_only(store: Store) -> None:
    """Published after published, or after the end, changes nothing and tells where the task is."""
    task = Task(store, policy("a"))
    assert store.settle(task.published()) == [Moved(BreakerTurn.UNCHANGED)]
    assert store.settle(task.published()) == [NotMoved(TaskState.PUBLISHED, 1)]
    assert store.settle(task.ended()) == [Moved(BreakerTurn.UNCHANGED)]
    assert store.settle(task.published()) == [NotMoved(TaskState.SUCCEEDED, 1)]
    assert store.actions(task.tenant) == ["decision.made", "assignment.published", "result.settled"]


def test_the_first_result_wins(store: Store) -> None:
    """Two results in one call: the first is settled, the second is told so and leaves no trace."""
    task = Task(store, policy("a", breaker=TRIP))
    outcomes = store.settle(task.ended(), task.ended(TaskState.FAILED, usage=b"other"))
    assert outcomes == [Moved(BreakerTurn.UNCHANGED), NotMoved(TaskState.SUCCEEDED, 1)]
    assert task.outbox() == {task.id: b"usage"}
    assert store.actions(task.tenant).count("result.settled") == 1


def test_a_repeated_call_changes_nothing(store: Store) -> None:
    """Whatever the store holds of a tenant is the same after the same call again."""
    of = tokens_limit()
    task = Task(store, policy("a", limits=[of], breaker=TRIP), tokens=50)
    move = task.ended(TaskState.FAILED, corrections=(correction(-20, of),))
    store.settle(move)
    dump = {k: store.client.dump(k) for k in store.client.scan_iter(store.keys.schema.encode() + b":*")}
    assert store.settle(move, move) == [NotMoved(TaskState.FAILED, 1)] * 2
    assert {k: store.client.dump(k) for k in store.client.scan_iter(store.keys.schema.encode() + b":*")} == dump


def test_another_attempts_result_is_not_taken(store: Store) -> None:
    """The attempt must be the record's."""
    task = Task(store, policy("a"))
    assert store.settle(task.ended(attempt=2)) == [NotMoved(TaskState.NEW, 1)]


def test_another_decisions_result_is_not_taken(store: Store) -> None:
    """The decision must be the record's."""
    task = Task(store, policy("a"))
    task.decision = task.decision[:-1] + b"\xff"
    assert store.settle(task.ended()) == [NotMoved(TaskState.NEW, 1)]


def test_an_unknown_task(store: Store) -> None:
    """Nothing is known of it and nothing is made."""
    task = Task(store, policy("a"))
    task.id = task.id[:2] + bytes(13) + b"\x01"
    assert store.settle(task.ended()) == [NotMoved(None, 0)]
    assert store.record(task.id) is None


def test_the_end_leaves_a_tombstone(store: Store) -> None:
    """The record says how it ended and lives for keep_ms; work item and due entry are gone; usage is in the outbox."""
    task = Task(store, policy("a"))
    store.settle(task.published())
    assert task.due() == store.now + DEADLINE
    store.settle(task.ended())
    record = store.record(task.id)
    assert record is not None
    assert (record.state, record.facts.request_id) == (TaskState.SUCCEEDED, "r")
    ttl: object = store.client.pttl(store.keys.task(task.id))
    assert isinstance(ttl, int)
    assert KEEP - 20_000 < ttl <= KEEP
    assert store.value(store.keys.job(task.id)) is None
    assert task.due() is None
    assert task.outbox() == {task.id: b"usage"}


def test_what_a_caller_is_to_be_told_is_kept_with_the_end(store: Store) -> None:
    """In the work item's place, for as long as the tombstone, and due in 5 s; a repeat of the end changes nothing."""
    task = Task(store, policy("a"))
    move = task.ended(final=Final("_INBOX.x", b"body"))
    store.settle(move)
    kept = store.value(store.keys.job(task.id))
    assert kept is not None
    assert final_in(kept) == move.final
    assert store.client.pttl(store.keys.job(task.id)) in range(KEEP - 20_000, KEEP + 1)
    assert task.due() == store.now + 5000
    assert store.settle(task.ended(TaskState.FAILED, final=Final("_INBOX.x", b"other"))) == [
        NotMoved(TaskState.SUCCEEDED, 1)
    ]
    assert store.value(store.keys.job(task.id)) == kept


def test_a_larger_form_is_told_and_a_smaller_one_kept(store: Store) -> None:
    """What a pod that died has left is the smaller one."""
    task = Task(store, policy("a"))
    store.settle(task.ended(final=Final("_INBOX.x", b"whole", b"short")))
    kept = store.value(store.keys.job(task.id))
    assert kept is not None
    assert final_in(kept) == Final("_INBOX.x", b"short")
    for damaged in (b"", b"\x01", kept[:2], b"\x03" + kept[1:]):
        with pytest.raises(FormatError):
            final_in(damaged)


async def test_large_rows_go_in_calls_of_their_own(single: Redis, redis_url: str) -> None:
    """A call that holds up the server is bounded by its bytes, too; every outcome is its move's."""
    store = Store(single)
    works = [Task(store, policy("a")) for _ in range(40)]
    body = bytes(60_000)
    nodes = SingleNode(redis_url)
    try:
        tasks = RedisTasks(store.keys, nodes)
        before: Any = single.info("commandstats")
        moves = [w.ended(final=Final("_INBOX.x", b"%d" % n + body)) for n, w in enumerate(works)]
        assert await tasks.move(moves) == [Moved(BreakerTurn.UNCHANGED)] * 40
        final_results = await tasks.final_results([w.id for w in works])
        assert [f.body[:2].rstrip(b"\0") for f in final_results if isinstance(f, Final)] == [
            b"%d" % n for n in range(40)
        ]
        after: Any = single.info("commandstats")
        calls = [x["cmdstat_fcall"]["calls"] for x in (before, after)]
        assert calls[1] - calls[0] >= 3
    finally:
        await nodes.close()


def test_a_move_on_keeps_the_records_life(store: Store) -> None:
    """A task that goes on keeps its time to live, and its deadline is the move's."""
    task = Task(store, policy("a"))
    before: object = store.client.pttl(store.keys.task(task.id))
    store.settle(task.published())
    after: object = store.client.pttl(store.keys.task(task.id))
    assert isinstance(before, int)
    assert isinstance(after, int)
    assert before - 20_000 < after <= before
    record = store.record(task.id)
    assert record is not None
    assert record.deadline_at_ms == store.now + DEADLINE


def test_undispatched_decisions_settle_once(store: Store) -> None:
    """A decision that its caller ran: its result counts once, and its answer can still be told."""
    tenant = store.tenant()
    p = policy("a", breaker=TRIP)
    made = store.one(request(tenant, "r"), p)
    assert isinstance(made, Admitted)
    move = undispatched(tenant, made.decision_id, BreakerVerdict.FAILURE, TRIP, provider_entry("a"), usage=b"u")
    assert store.settle(move, move) == [Moved(BreakerTurn.OPENED), NotMoved(TaskState.SUCCEEDED, 0)]
    replay = store.one(request(tenant, "r"), p)
    assert isinstance(replay, Replay)
    assert replay.remembered.settled
    assert replay.remembered.provider_id == "a"
    outbox = store.keys.outbox(partition_in(made.decision_id))
    assert store.client.hgetall(outbox) == {made.decision_id: b"u"}
    ttl: object = store.client.pttl(store.of(tenant).idem(name_in(made.decision_id)))
    assert isinstance(ttl, int)
    assert ttl > 86_000_000


def test_an_older_decision_of_the_same_key(store: Store) -> None:
    """A decision whose key has been given anew (a day later) is not settled by the old decision's result."""
    tenant = store.tenant()
    first = store.one(request(tenant, "r"), policy("a"))
    assert isinstance(first, Admitted)
    store.client.delete(store.of(tenant).idem(name_in(first.decision_id)))
    second = store.one(request(tenant, "r"), policy("a"))
    assert isinstance(second, Admitted)
    assert store.settle(undispatched(tenant, first.decision_id, BreakerVerdict.SUCCESS)) == [NotMoved(None, 0)]
    assert store.settle(undispatched(tenant, second.decision_id, BreakerVerdict.SUCCESS)) == [
        Moved(BreakerTurn.UNCHANGED)
    ]


def test_a_note_is_only_audited(store: Store) -> None:
    """A note writes its record and nothing else."""
    tenant = store.tenant()
    note = Move(tenant, bytes(16), Action.RESULT_LATE, FEATURES, note=True)
    assert store.settle(note) == [Moved(BreakerTurn.UNCHANGED)]
    assert store.actions(tenant) == ["result.late"]
    assert list(store.client.scan_iter(store.of(tenant).prefix + b"*")) == [store.of(tenant).audit]


# Limits


def passes(store: Store, task: Task, of: Limit, units: int) -> bool:
    """Whether a fresh request for so many tokens passes now (and charges them)."""
    probe = request(task.tenant, uuid4().hex, options=Options(estimate_tokens=units))
    return isinstance(store.one(probe, policy("a", limits=[of])), Admitted)


@pytest.mark.parametrize("later_ms", [0, 20_000, 59_000])
def test_unused_units_are_given_back_where_they_were_charged(store: Store, later_ms: int) -> None:
    """100 reserved and 30 used: exactly 70 are free at once, and all 100 when the charge leaves."""
    of = tokens_limit()
    task = Task(store, policy("a", limits=[of]), tokens=100)
    store.now += later_ms
    assert not passes(store, task, of, 1)
    store.settle(task.ended(corrections=(correction(-70, of),)))
    assert not passes(store, task, of, 71)
    assert passes(store, task, of, 70)
    store.now = task.charged_ms + 12 * -(-MINUTE // 11)
    assert passes(store, task, of, 30)
    assert not passes(store, task, of, 1) or later_ms == 0


@pytest.mark.parametrize("later", [22, 12])
def test_what_has_left_is_not_given_back(store: Store, later: int) -> None:
    """After the charge's bucket has gone, a give-back frees nothing of what others reserved since, not even what they
    reserved in the bucket that took its place in the ring."""
    of = tokens_limit()
    task = Task(store, policy("a", limits=[of]), tokens=100)
    bucket = -(-MINUTE // 11)
    store.now += later * bucket
    assert passes(store, task, of, 100)
    store.now += bucket
    store.settle(task.ended(corrections=(correction(-70, of),)))
    assert not passes(store, task, of, 1)


def test_no_more_is_given_back_than_the_newest_bucket_has(store: Store) -> None:
    """A give-back at the moment of its charge, and beyond it, leaves what others hold in older buckets."""
    of = tokens_limit()
    tenant, stored = store.tenant(), policy("a", limits=[of])
    assert isinstance(store.one(request(tenant, "others", options=Options(estimate_tokens=50)), stored), Admitted)
    store.now += 20_000
    made = store.one(request(tenant, "own", options=Options(estimate_tokens=10)), stored)
    assert isinstance(made, Admitted)
    back = correction(-40, of)
    store.settle(
        undispatched(tenant, made.decision_id, BreakerVerdict.NEITHER, charged_ms=store.now, corrections=(back,))
    )
    assert isinstance(store.one(request(tenant, "a", options=Options(estimate_tokens=51)), stored), LimitHit)
    assert isinstance(store.one(request(tenant, "b", options=Options(estimate_tokens=50)), stored), Admitted)


def test_a_log_gives_back_what_its_own_decision_took(store: Store) -> None:
    """Of several charges of one moment the settled one's is given back, and the others stand."""
    of = limit("t", Scope.TENANT, Resource.TOKENS, 100, MINUTE, algorithm=Algorithm.LOG)
    tenant, stored = store.tenant(), policy("a", limits=[of])
    asks = [request(tenant, f"r{n}", options=Options(estimate_tokens=20)) for n in range(4)]
    made = [store.one(ask, stored) for ask in asks]
    decisions = sorted(m.decision_id for m in made if isinstance(m, Admitted))
    assert len(decisions) == 4
    back = Correction(Reservation(of.scope, "", of.resource, of.entry, of.window_ms, 20, log=True), "", -15)
    move = undispatched(tenant, decisions[-1], BreakerVerdict.NEITHER, charged_ms=store.now, corrections=(back,))
    assert store.settle(move) == [Moved(BreakerTurn.UNCHANGED)]
    charges: Any = store.client.zrangebyscore(store.of(tenant).log(of.entry + b":"), store.now, store.now)
    units = {m[:16]: struct.unpack(">d", m[16:])[0] for m in charges}
    assert units == dict.fromkeys(decisions[:-1], 20.0) | {decisions[-1]: 5.0}


def test_no_more_is_given_back_than_was_charged(store: Store) -> None:
    """A give-back beyond the bucket's units leaves the counter at what others hold, never below."""
    of = tokens_limit()
    task = Task(store, policy("a", limits=[of]), tokens=10)
    store.now += 20_000
    assert passes(store, task, of, 50)
    store.settle(task.ended(corrections=(correction(-40, of),)))
    assert not passes(store, task, of, 51)
    assert passes(store, task, of, 50)


def test_an_overrun_is_charged_now(store: Store) -> None:
    """60 reserved and 90 used: 10 are left now, and the 30 stay until a window after the settlement."""
    of = tokens_limit()
    task = Task(store, policy("a", limits=[of]), tokens=60)
    store.now += 30_000
    store.settle(task.ended(corrections=(correction(30, of),)))
    assert not passes(store, task, of, 11)
    store.now = task.charged_ms + 12 * -(-MINUTE // 11)
    assert not passes(store, task, of, 71)
    assert passes(store, task, of, 70)


def test_leases_are_freed(store: Store) -> None:
    """The limit's slot and the provider's slot are free with the result, and only this decision's."""
    slots = limit("c", Scope.TENANT, Resource.CONCURRENCY, 2, 0)
    p = policy(provider("a", max_concurrency=2), limits=[slots])
    task = Task(store, p)
    assert isinstance(store.one(request(task.tenant, "2"), p), Admitted)
    assert isinstance(store.one(request(task.tenant, "3"), p), LimitHit)
    own = Correction(Reservation(Scope.PROVIDER, "", Resource.CONCURRENCY, b"", 0, 1), "a", -1)
    store.settle(task.ended(leases=(correction(-1, slots), own)))
    keys = store.of(task.tenant)
    assert [store.client.zcard(keys.lease(k)) for k in (slots.entry + b":", provider_entry("a"))] == [1, 1]
    assert isinstance(store.one(request(task.tenant, "3"), p), Admitted)
    assert isinstance(store.one(request(task.tenant, "4"), p), LimitHit)


# What is broken


@pytest.mark.parametrize("broken", ["state_user", "lease", "audit", "state", "outbox"])
def test_a_key_of_a_wrong_type_leaves_the_task(store: Store, broken: str) -> None:
    """The row is a fault, the task is where it was and can be settled later; the neighbour is settled."""
    spent = limit("u", Scope.USER, Resource.TOKENS, 100, MINUTE)
    slots = limit("c", Scope.TENANT, Resource.CONCURRENCY, 9, 0)
    bad, fine = Task(store, policy("a")), Task(store, policy("a"))
    while store.of(bad.tenant).partition == store.of(fine.tenant).partition:
        fine = Task(store, policy("a"))
    keys = store.of(bad.tenant)
    names = {
        "state_user": keys.user_state("ann"),
        "lease": keys.lease(slots.entry + b":"),
        "audit": keys.audit,
        "state": keys.state,
        "outbox": store.keys.outbox(keys.partition),
    }
    kept = store.client.dump(keys.audit)
    store.client.delete(names[broken])
    store.client.lpush(names[broken], "a list")
    move = bad.ended(corrections=(correction(-5, spent, "ann"),), leases=(correction(-1, slots),))
    first, second = store.settle(move, fine.ended())
    assert isinstance(first, MoveFault)
    assert second == Moved(BreakerTurn.UNCHANGED)
    record = store.record(bad.id)
    assert record is not None
    assert record.state is TaskState.NEW
    assert store.value(store.keys.job(bad.id)) == b"work"
    assert bad.due() is not None
    if broken != "outbox":
        assert bad.id not in bad.outbox()
    store.client.delete(names[broken])
    if broken == "audit":
        assert kept is not None
        store.client.restore(keys.audit, 0, kept)
    assert store.settle(move) == [Moved(BreakerTurn.UNCHANGED)]


def test_a_foreign_record_is_a_fault(store: Store) -> None:
    """A record of another format is not touched."""
    task = Task(store, policy("a"))
    store.client.set(store.keys.task(task.id), b"\x09whatever")
    (outcome,) = store.settle(task.ended())
    assert isinstance(outcome, MoveFault)
    assert store.value(store.keys.task(task.id)) == b"\x09whatever"


def test_a_fault_at_every_call(single: Redis) -> None:
    """Whichever call of a settlement fails: a task that ended has its audit record and its usage, once; one that did
    not can be settled again; the neighbour is settled."""
    slots = limit("c", Scope.TENANT, Resource.CONCURRENCY, 9, 0)
    seen = 0
    for n in range(2, 40):
        store = Store(single)
        failing = settle_script(replace={"clock": FAILING.replace("FAIL_AT", str(n)) + TEST_CLOCK + EACH_CALL})
        healthy, store.settle_script = store.settle_script, failing
        task, fine = Task(store, policy("a", limits=[slots])), Task(store, policy("a"))
        move = task.ended(TaskState.FAILED, leases=(correction(-1, slots),))
        first, second = store.settle(move, fine.ended())
        if not isinstance(first, MoveFault):
            break
        seen += 1
        assert second == Moved(BreakerTurn.UNCHANGED)
        record = store.record(task.id)
        assert record is not None
        if record.state.final:
            assert task.outbox()[task.id] == b"usage"
            assert "result.settled" in store.actions(task.tenant)
        store.settle_script = healthy
        assert isinstance(store.settle(move)[0], NotMoved if record.state.final else Moved)
        record = store.record(task.id)
        assert record is not None
        assert record.state is TaskState.FAILED
        assert task.outbox()[task.id] == b"usage"
        assert store.client.zcard(store.of(task.tenant).lease(slots.entry + b":")) == 0
    assert seen >= 6


# Breakers


def test_a_result_turns_the_breaker(store: Store) -> None:
    """The turn is answered, audited after the result, and felt by the next decision."""
    task = Task(store, policy("a", breaker=TRIP))
    assert store.settle(task.ended(TaskState.FAILED)) == [Moved(BreakerTurn.OPENED)]
    assert store.actions(task.tenant)[-2:] == ["result.settled", "breaker.opened"]
    assert not isinstance(store.one(request(task.tenant, "next"), task.stored), Admitted)


# Claims


def test_a_claim_keeps_others_away(store: Store) -> None:
    """What is due is claimed once, and again when the claim has run out."""
    task = Task(store, policy("a"))
    partition = store.of(task.tenant).partition
    assert store.claim(partition, 10_000, 10) == []
    store.now += 3_000
    assert store.claim(partition, 10_000, 10) == [task.id]
    assert store.claim(partition, 10_000, 10) == []
    store.now += 10_000
    assert store.claim(partition, 10_000, 10) == [task.id]


def test_a_claim_takes_so_many(store: Store) -> None:
    """At most `maximum`, the longest due first; nothing that is not due."""
    due = store.keys.due(3)
    store.client.zadd(due, {f"task{i:012}": store.now - 100 + i * 20 for i in range(10)})
    assert store.claim(3, 5_000, 2) == [b"task000000000000", b"task000000000001"]
    assert len(store.claim(3, 5_000, 100)) == 4
    assert store.claim(3, 5_000, 100) == []


def test_a_claim_takes_what_is_due_too_late(store: Store) -> None:
    """When it is asked to look: Redis' clock was set back since. What is due within the bound stays."""
    due, hour = store.keys.due(3), 3_600_000
    times = {b"due": -1, b"soon": 1, b"bound": hour, b"late": hour + 1, b"next year": 365 * 24 * hour}
    store.client.zadd(due, {name: store.now + ms for name, ms in times.items()})
    assert store.claim(3, 5_000, 10) == [b"due"]
    assert store.claim(3, 5_000, 1, hour) == [b"late"]
    assert store.claim(3, 5_000, 10, hour) == [b"next year"]
    assert store.claim(3, 5_000, 10, hour) == []
    store.now += 5_000
    assert sorted(store.claim(3, 5_000, 10, hour)) == [b"due", b"late", b"next year", b"soon"]


async def test_a_claim_takes_so_many_of_all_sets(redis_url: str) -> None:
    """`maximum` bounds the call, not each set; what is left over is claimed next."""
    nodes, keys = SingleNode(redis_url), Keys(schema=f"t{uuid4().hex[:10]}")
    tasks = RedisTasks(keys, nodes)
    for p in range(8):
        await nodes.call("ZADD", keys.due(p), *(x for n in range(5) for x in (0, b"%08d-%07d" % (p, n))))
    assert len((await tasks.claim(60_000, maximum=12)).task_ids) == 12
    assert len((await tasks.claim(60_000, maximum=100)).task_ids) == 28
    await nodes.close()


async def test_a_damaged_set_holds_up_no_other(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """One partition's due set is of another type: those of the others are claimed, and the log names it once."""
    nodes, keys = SingleNode(redis_url), Keys(schema=f"t{uuid4().hex[:10]}")
    tasks = RedisTasks(keys, nodes)
    await nodes.call("SET", keys.due(5), "damaged")
    for p in (4, 6):
        await nodes.call("ZADD", keys.due(p), 0, b"%016d" % p)
    assert sorted((await tasks.claim(0, maximum=10)).task_ids) == [b"%016d" % p for p in (4, 6)]
    assert len((await tasks.claim(0, maximum=10)).task_ids) == 2
    told = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert [keys.due(5).decode() in text for text in told] == [True]
    await nodes.close()


# Epochs


@pytest.fixture
def scope() -> str:
    """A scope that nobody else uses."""
    return uuid4().hex


@pytest.fixture
async def epochs(redis_url: str) -> AsyncIterator[RedisEpochs]:
    """Epochs on the session's server."""
    nodes = SingleNode(redis_url)
    yield RedisEpochs(Keys(), nodes)
    await nodes.close()


async def test_all_pods_join_one_episode(epochs: RedisEpochs, scope: str) -> None:
    """While it is open everybody gets its epoch; the next one gets a greater."""
    first = await epochs.begin("redis_away", scope=scope)
    assert await epochs.begin("redis_away", scope=scope) == first
    await epochs.end("redis_away", scope=scope, epoch=first)
    assert await epochs.begin("redis_away", scope=scope) == first + 1


async def test_the_open_episode_is_known_to_all(epochs: RedisEpochs, scope: str) -> None:
    """Whoever sees an end finds the episode that began elsewhere; before it and after it there is none."""
    assert await epochs.current("breaker_opened", scope=scope) is None
    first = await epochs.begin("breaker_opened", scope=scope)
    assert await epochs.current("breaker_opened", scope=scope) == first
    assert scope in await epochs.open_scopes("breaker_opened")
    assert scope not in await epochs.open_scopes("redis_away")
    await epochs.end("breaker_opened", scope=scope, epoch=first)
    assert await epochs.current("breaker_opened", scope=scope) is None
    assert scope not in await epochs.open_scopes("breaker_opened")


async def test_what_nobody_joins_is_left(epochs: RedisEpochs, scope: str) -> None:
    """Open and not joined for that long; what is over is not."""
    mine = "redis_away", scope
    first = await epochs.begin(*mine)
    assert mine in await epochs.stale(-60_000)
    assert mine not in await epochs.stale(60_000)
    await epochs.end(*mine, first)
    assert mine not in await epochs.stale(-60_000)


async def test_an_old_episode_cannot_be_ended_again(epochs: RedisEpochs, scope: str) -> None:
    """Who ends an episode that is over does not close the one that is open."""
    first = await epochs.begin("redis_away", scope=scope)
    await epochs.end("redis_away", scope=scope, epoch=first)
    second = await epochs.begin("redis_away", scope=scope)
    await epochs.end("redis_away", scope=scope, epoch=first)
    assert await epochs.begin("redis_away", scope=scope) == second


async def test_conditions_and_scopes_are_apart(epochs: RedisEpochs, scope: str, single: Redis) -> None:
    """An episode is of one condition and one scope."""
    first = await epochs.begin("redis_away", scope=scope)
    await epochs.end("redis_away", scope=scope, epoch=first)
    assert await epochs.begin("redis_away", scope=scope + "2") == 1
    assert await epochs.begin("nats_away", scope=scope) == 1
    assert single.hexists("r1:epochs", f"redis_away:{scope}")
