"""One reply for every request, whatever breaks on the way; and nothing is left in flight."""

import asyncio

import orjson
import pytest
from msgspec.structs import replace

from router.domain.decide.decision import PinState, Reason
from router.domain.decide.outcome import Admitted, RowFault, Unavailable
from router.domain.policy.model import StoredPolicy, TenantPolicies
from router.domain.policy.vocabulary import OnStoreError
from router.errors import StoreUnavailable
from router.ports.policies import LOADING
from router.wire.policies import decode
from tests.fleet.harness import until
from tests.usecases.decide.room import POLICIES, STAMP, Room
from tests.usecases.fakes.decisions import ADMITTED


async def test_an_admitted_row_is_answered_and_observed() -> None:
    """The plain way, and the stamp goes to the cache."""
    room = Room()
    room.ask()
    assert room.decide.in_flight == 1
    room.store.rows[0](ADMITTED, STAMP)
    assert (await room.answered())[0]["decision"]["provider_id"] == "a"
    assert room.policies.seen == [STAMP]
    assert room.dispatched == []


@pytest.mark.parametrize("state", PinState)
async def test_a_pin_is_counted_by_its_state(state: PinState) -> None:
    """Each decision with a pin counts once under its state; a decision without one counts nowhere."""
    room = Room()
    room.ask()
    room.store.rows[0](replace(ADMITTED, pin=state), STAMP)
    await room.answered()
    counted = {s: room.registry.get_sample_value("router_pins_total", {"state": s}) for s in ("new", "held", "left")}
    assert counted == {s: float(s == state.name.lower()) for s in counted}


async def test_a_policy_without_extensions_pays_nothing_for_them() -> None:
    """Its row is with the store and its caller is told before anything else runs: no task, no turn of the loop."""
    room = Room()
    before = asyncio.all_tasks()
    room.ask()
    room.store.rows[0](ADMITTED, STAMP)
    assert len(room.replies) == 1
    assert asyncio.all_tasks() == before


async def test_a_policy_with_extensions_takes_the_other_way() -> None:
    """A task of its own; the store gets no row from here."""
    room = Room()
    extended = decode(b'{"providers":[{"name":"a","weight":100}],"pre":[{"id":"x"}]}').policy
    room.policies.cached = TenantPolicies("acme", 1, STAMP, {"default": StoredPolicy("default", 1, "h", extended)})
    before = asyncio.all_tasks()
    room.ask()
    assert len(asyncio.all_tasks() - before) == 1
    assert room.store.rows == []
    assert await room.code() == "internal"  # as the way itself is not in this room


async def test_a_pushed_task_is_dispatched_after_its_reply() -> None:
    """Once, and only when it was admitted."""
    room = Room()
    room.ask(push_assignment=True)
    room.ask(push_assignment=True)
    room.store.rows[0](ADMITTED, STAMP)
    room.store.rows[1](Unavailable(sent=True), b"")
    await room.answered(2)
    assert len(room.dispatched) == 1


async def test_a_bug_in_the_store_is_answered() -> None:
    """`internal`, once."""
    room = Room()
    room.store.broken = True
    room.ask()
    assert await room.code() == "internal"


@pytest.mark.parametrize(
    ("fault", "code"), [(StoreUnavailable("away"), "unavailable"), (ValueError("a record of nonsense"), "internal")]
)
async def test_a_load_that_fails_is_answered(fault: Exception, code: str) -> None:
    """Whatever a load raises: one reply, nothing in flight."""
    room = Room()
    room.policies.cached, room.policies.loaded = LOADING, fault
    room.ask()
    assert await room.code() == code


async def test_a_policy_that_the_pod_has_not_heard_of_is_looked_for() -> None:
    """Its announcement was missed: the request that asks for it is decided by it."""
    room = Room()
    room.policies.cached, room.policies.old = TenantPolicies("acme", 1, STAMP, {}), True
    room.ask()
    await asyncio.sleep(0)
    room.store.rows[0](ADMITTED, STAMP)
    await room.answered(1)
    assert room.replies[0]["ok"] is True


@pytest.mark.parametrize("loaded", [TenantPolicies("acme", 1, STAMP, {}), StoreUnavailable("away")])
async def test_a_policy_that_nobody_has_heard_of(loaded: TenantPolicies | Exception) -> None:
    """Looked for once, and refused by name; also where the store is away, by what was there last."""
    room = Room()
    room.policies.cached, room.policies.old = TenantPolicies("acme", 1, STAMP, {}), True
    room.policies.loaded = loaded
    room.ask()
    assert await room.code() == "policy_not_found"
    assert room.store.rows == []


async def test_an_outcome_that_cannot_be_told_is_answered() -> None:
    """A candidate that the plan does not have, say: `internal`, and nothing is left in flight."""
    room = Room()
    room.ask()
    room.store.rows[0](Admitted(7, Reason.WEIGHTED, b"", PinState.NONE, bytes(16)), STAMP)
    assert await room.code() == "internal"


async def test_a_bug_in_the_dispatch_does_not_answer_twice() -> None:
    """The decision was told already; the sweeper has the rest."""
    room = Room()
    room.broken_dispatch = True
    room.ask(push_assignment=True)
    room.store.rows[0](ADMITTED, STAMP)
    assert (await room.answered())[0]["ok"] is True


async def test_a_fault_of_a_row_is_internal(caplog: pytest.LogCaptureFixture) -> None:
    """And counted. One that every request of a tenant meets, as a damaged key is, is logged once."""
    room = Room()
    for _ in range(5):
        room.ask()
    for row in room.store.rows:
        row(RowFault("a damaged key"), STAMP)
    await room.answered(5)
    assert {reply["error"]["code"] for reply in room.replies} == {"internal"}
    assert room.registry.get_sample_value("router_store_row_faults_total") == 5
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == ["a damaged key"]


async def test_overload_is_told_before_the_request_is_read() -> None:
    """Even garbage is refused as overload."""
    room = Room(max_in_flight=1)
    room.ask()
    room.decide.handle(b"nonsense", None, None, room.reply)
    assert room.replies[0]["error"]["code"] == "service_overloaded"
    room.store.rows[0](ADMITTED, STAMP)
    await room.answered(2)


async def test_without_a_reply_subject_only_pushes_are_decided() -> None:
    """Nobody would hear the others."""
    room = Room()
    body = {"version": "1", "tenant_id": "acme", "task": {"type": "chat"}}
    room.decide.handle(orjson.dumps(body), None, None, None)
    assert room.store.rows == []
    room.decide.handle(orjson.dumps(body | {"push_assignment": True}), None, None, None)
    room.store.rows[0](ADMITTED, STAMP)
    assert len(room.dispatched) == 1
    await room.answered(0)


async def test_a_tenant_outside_the_allow_list_is_unauthorized() -> None:
    """Before its policies are looked at."""
    room = Room(allowed_tenants=frozenset({"other"}))
    room.ask()
    assert await room.code() == "unauthorized"


async def test_a_deadline_above_the_bound_is_refused() -> None:
    """ROUTER_DEADLINE_MAX."""
    room = Room(deadline_max_ms=1000)
    room.ask(options={"deadline_ms": 1001})
    assert await room.code() == "invalid_request"


async def test_without_the_store_and_the_levers_nothing_is_decided() -> None:
    """Its policies were dropped from memory meanwhile, and with them what operators hold: unavailable."""
    room = Room(on_store_error=OnStoreError.ALLOW)
    room.ask()
    room.policies.cached = LOADING
    room.store.rows[0](Unavailable(sent=False), b"")
    assert await room.code() == "unavailable"
    assert room.deferred == []


@pytest.mark.parametrize(("sent", "degraded"), [(False, True), (True, False)])
async def test_only_a_row_that_was_not_sent_is_decided_without_the_store(sent: bool, degraded: bool) -> None:
    """A row that may have been executed must not get a second, other decision."""
    room = Room(on_store_error=OnStoreError.ALLOW)
    room.ask()
    room.store.rows[0](Unavailable(sent=sent), b"")
    (reply,) = await room.answered()
    assert reply["ok"] is degraded
    assert len(room.deferred) == int(degraded)
    assert room.policies.seen == []


async def test_a_load_that_hangs_counts_towards_the_wait() -> None:
    """The policies do not come: refused when the wait is over. They come late: the row has what is left of the wait."""
    room = Room(wait_s=0.2)
    load: asyncio.Future[TenantPolicies | None] = asyncio.get_running_loop().create_future()
    room.policies.cached = LOADING
    room.policies.begin_load = lambda tenant_id: load  # type: ignore[method-assign]
    started = asyncio.get_running_loop().time()
    room.ask()
    assert await room.code() == "unavailable"
    assert asyncio.get_running_loop().time() - started > 0.15
    load.set_result(POLICIES)
    await asyncio.sleep(0)
    await room.answered(1)  # and not once more
    assert room.store.rows == []


async def test_a_row_after_a_load_has_what_is_left_of_the_wait() -> None:
    """Its wait counts from the request's arrival; the row of a request that has not waited counts from now."""
    room = Room()
    room.ask()
    room.policies.cached = LOADING
    now = asyncio.get_running_loop().time
    arrived = now()
    room.ask()
    taken = now()
    await until(lambda: len(room.store.rows) == 2, 30, "the second row")
    first, since = room.store.since
    assert first is None
    assert since is not None
    assert arrived <= since <= taken
    for row in room.store.rows:
        row(ADMITTED, STAMP)
    await room.answered(2)
