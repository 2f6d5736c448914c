"""What is broken stays with its own row: wrong types, garbage under keys, garbage rows, a fault at every call."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from redis import Redis

from router.domain.decide.outcome import Admitted, Conflict, LimitHit, NoCandidate, Outcome, Replay, RowFault
from router.domain.ids import name_in, task_id
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, provider, provider_entry
from router.domain.policy.vocabulary import Resource, Scope, WhenAllOpen
from router.domain.tasks.result import BreakerVerdict
from router.installed_files import lua_dir
from router.store.decide.replies import FAULT
from router.store.keys import TenantKeys
from tests.store.failing import EACH_CALL, FAILING
from tests.store.full import full, full_ask
from tests.store.harness import MINUTE, TEST_CLOCK, Ask, Store, policy, request, undispatched


def pin_of(keys: TenantKeys, ask: Ask) -> bytes:
    """The pin's key."""
    pin = ask.plan.pin
    assert pin is not None
    return keys.pin(pin.name)


LOG = limit("l", Scope.TENANT, Resource.REQUESTS, 5, MINUTE).entry
LEASE = limit("c", Scope.TENANT, Resource.CONCURRENCY, 5, 0).entry
KINDS: dict[str, Callable[[TenantKeys, Ask], bytes]] = {
    "idem": lambda keys, ask: keys.idem(ask.plan.name),
    "head": lambda keys, _: keys.head,
    "state": lambda keys, _: keys.state,
    "state_user": lambda keys, _: keys.user_state("u"),
    "state_policy": lambda keys, _: keys.policy_state("default"),
    "state_provider": lambda keys, _: keys.provider_state("a"),
    "lease": lambda keys, _: keys.lease(LEASE + b":"),
    "log": lambda keys, _: keys.log(LOG + b":"),
    "lease of a provider": lambda keys, _: keys.lease(provider_entry("a")),
    "pin": pin_of,
    "audit": lambda keys, _: keys.audit,
    "due": lambda keys, _: keys.due,
}
STRINGS = ("idem", "head", "state", "state_user", "state_policy", "state_provider", "pin")


ODD_NUMBERS = [struct.pack(">d", x) for x in (float("inf"), float("-inf"), float("nan"), 1e300, -1e300, 1e17)]


def strangers(store: Store) -> tuple[str, str]:
    """Two tenants of different partitions, so that they share no due set."""
    one = store.tenant()
    two = store.tenant()
    while store.of(two).partition == store.of(one).partition:
        two = store.tenant()
    return one, two


def neighbours_are_right(store: Store, tenant: str, before: Outcome, after: Outcome) -> None:
    """Both were admitted, counted and remembered: exactly three more pass of five."""
    assert isinstance(before, Admitted), before
    assert isinstance(after, Admitted), after
    more = store.decide(*(full_ask(tenant, f"more{i}") for i in range(4)))
    assert [type(o) for o in more] == [Admitted, Admitted, Admitted, LimitHit]
    assert isinstance(store.decide(full_ask(tenant, "before"))[0], Replay)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_a_wrong_type(store: Store, kind: str) -> None:
    """The row is a fault that charges nothing and remembers nothing; its neighbours are decided and counted."""
    broken, tenant = strangers(store)
    keys = store.of(broken)
    bad = full_ask(broken, "r")
    wrong = KINDS[kind](keys, bad)
    store.client.lpush(wrong, "a list")
    before, fault, after = store.decide(full_ask(tenant, "before"), bad, full_ask(tenant, "after"))
    assert isinstance(fault, RowFault), fault
    assert "WRONGTYPE" in fault.message
    for owner in ("state", "state_user", "state_policy", "state_provider", "idem", "pin"):
        if owner != kind:
            assert store.value(KINDS[owner](keys, bad)) is None
    neighbours_are_right(store, tenant, before, after)
    store.client.delete(wrong)
    (healed,) = store.decide(bad)
    assert isinstance(healed, Admitted)


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"\x09whatever it is", b"\x01\xff" + b"\xff" * 4, b"\xff" * 400])
@pytest.mark.parametrize("kind", STRINGS)
def test_garbage_under_a_key(store: Store, kind: str, garbage: bytes) -> None:
    """A value that no version wrote: that row alone is a fault (or a conflict, where a fingerprint should stand)."""
    broken, tenant = strangers(store)
    bad = full_ask(broken, "r")
    store.client.set(KINDS[kind](store.of(broken), bad), garbage)
    before, fault, after = store.decide(full_ask(tenant, "before"), bad, full_ask(tenant, "after"))
    assert isinstance(fault, RowFault) or (kind == "idem" and garbage[:1] == b"\x01" and fault == Conflict())
    neighbours_are_right(store, tenant, before, after)


@given(data=some.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_state_never_fails_its_batch(store_at_once: Store, data: some.DataObject) -> None:
    """Any bytes of a state string may be wrong, also where numbers stand: the batch is answered, neighbours counted."""
    store = store_at_once
    broken, tenant = strangers(store)
    stored = full()
    (made,) = store.decide(full_ask(broken, "first"))
    assert isinstance(made, Admitted)
    store.settle(undispatched(broken, made.decision_id, BreakerVerdict.FAILURE, Breaker(), provider_entry("a")))
    key = store.of(broken).state
    raw = bytearray(store.value(key) or b"")
    at = data.draw(some.integers(1, len(raw) - 1))
    raw[at : at + 8] = data.draw(some.one_of(some.binary(min_size=1, max_size=8), some.sampled_from(ODD_NUMBERS)))
    store.client.set(key, bytes(raw))
    before, _, after = store.decide(
        full_ask(tenant, "before"), Ask(request(broken, "r", user="v"), stored), full_ask(tenant, "after")
    )
    store.settle(undispatched(broken, made.decision_id, BreakerVerdict.FAILURE, Breaker(), provider_entry("a")))
    neighbours_are_right(store, tenant, before, after)


def test_no_number_in_a_state_fails_a_batch(store: Store) -> None:
    """Infinity, NaN or the far future anywhere in a state string: every call is answered and writes its neighbours."""
    tenant = store.tenant()
    (made,) = store.decide(full_ask(tenant, "first"))
    assert isinstance(made, Admitted)
    store.settle(undispatched(tenant, made.decision_id, BreakerVerdict.FAILURE, Breaker(), provider_entry("a")))
    raw = store.value(store.of(tenant).state) or b""
    p = policy("a", limits=[limit(Scope.TENANT, Scope.TENANT, Resource.REQUESTS, 5, MINUTE)], breaker=Breaker())
    for at in range(2, len(raw) - 8):
        odd = ODD_NUMBERS[at % len(ODD_NUMBERS)]
        broken, fine = store.tenant(), store.tenant()
        store.client.set(store.of(broken).state, raw[:at] + odd + raw[at + 8 :])
        _, outcome = store.decide(Ask(request(broken, "r"), p), Ask(request(fine, "r"), p))
        assert isinstance(outcome, Admitted)
        assert store.value(store.of(fine).state) is not None


@given(cut=some.integers(0, 400), noise=some.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_cut_row_never_fails_its_batch(store_at_once: Store, cut: int, noise: bytes) -> None:
    """A row that ends early, or in noise, is answered; its neighbours are decided and counted."""
    store = store_at_once
    broken, tenant = strangers(store)
    batch = store.batch([full_ask(tenant, "before"), full_ask(broken, "r"), full_ask(tenant, "after")])
    batch.rows[1] = batch.rows[1][: min(cut, len(batch.rows[1]) - 1)] + noise
    replies = store.call(store.decide_script, list(batch.index), [store.header(), *batch.rows])
    assert len(replies) == 6
    batch.waiting, kept = [batch.waiting[0], batch.waiting[2]], replies[4]
    assert isinstance(kept, bytes)
    before, after = store.read(batch, [*replies[:4], replies[5]])
    neighbours_are_right(store, tenant, before, after)


@pytest.mark.parametrize("units", [float("nan"), -1.0, float("inf")])
def test_units_that_are_no_number_of_units(store: Store, units: float) -> None:
    """A charge of NaN, of less than nothing or of infinity is a fault: it cannot empty or poison a counter."""
    tenant = store.tenant()
    p = policy("a", limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 2, MINUTE)])
    batch = store.batch([Ask(request(tenant, "r"), p)])
    charge = struct.pack(">dd", 2.0, 1.0)
    assert batch.rows[0].count(charge) == 1
    batch.rows[0] = batch.rows[0].replace(charge, struct.pack(">dd", 2.0, units))
    replies = store.call(store.decide_script, list(batch.index), [store.header(), *batch.rows])
    assert replies[3][4] == FAULT
    outcomes = store.decide(*(Ask(request(tenant, f"n{i}"), p) for i in range(3)))
    assert [type(o) for o in outcomes] == [Admitted, Admitted, LimitHit]


def test_many_limits_of_one_owner(store: Store) -> None:
    """Policies of one tenant may have 255 live limits together; the next row is a fault and the others are counted."""
    tenant = store.tenant()
    for start in range(0, 224, 32):
        limits = [limit(f"l{i}", Scope.TENANT, Resource.REQUESTS, 9, MINUTE) for i in range(start, start + 32)]
        assert isinstance(store.one(request(tenant, f"r{start}"), policy("a", limits=limits)), Admitted)
    limits = [limit(f"m{i}", Scope.TENANT, Resource.REQUESTS, 9, MINUTE) for i in range(31)]
    assert isinstance(store.one(request(tenant, "r"), policy("a", limits=limits)), Admitted)
    one_more = policy("a", limits=[limit("more", Scope.TENANT, Resource.REQUESTS, 9, MINUTE)])
    fault, fine = store.decide(
        Ask(request(tenant, "x"), one_more), Ask(request(tenant, "y"), policy("a", limits=limits))
    )
    assert isinstance(fault, RowFault)
    assert isinstance(fine, Admitted)
    store.now += 2 * MINUTE
    assert isinstance(store.one(request(tenant, "y2"), policy("a", limits=limits)), Admitted)
    assert isinstance(store.one(request(tenant, "z"), one_more), Admitted)


# A fault at every call


def failing(single: Redis, n: int) -> Store:
    """A store whose decide script's n-th call raises."""
    return Store(single, replace={"clock": FAILING.replace("FAIL_AT", str(n)) + TEST_CLOCK + EACH_CALL})


def calls_of(single: Redis, batch_of: Callable[[Store], list[Ask]]) -> int:
    """How many calls a batch makes, its flush left out (the include is replaced from there on)."""
    for n in range(1, 200):
        store = failing(single, n)
        try:
            outcomes = store.decide(*batch_of(store))
        except Exception as fault:
            assert "injected" in str(fault)  # noqa: PT017 - the clock or the flush: the call as a whole
            continue
        if not any(isinstance(o, RowFault) for o in outcomes):
            return n - 1
    raise AssertionError("a batch of endless calls")


def broken_breaker(store: Store, tenant: str) -> None:
    """Open the breaker of `a` and let its timeout pass."""
    tripped = Breaker(failure_threshold=1)
    made = store.one(request(tenant, "trip"), policy("a", breaker=tripped))
    assert isinstance(made, Admitted)
    store.settle(undispatched(tenant, made.decision_id, BreakerVerdict.FAILURE, tripped, provider_entry("a")))
    store.now += 60_000


def test_a_fault_at_every_call(single: Redis) -> None:
    """Whichever call of a row fails: an answer is remembered only with its audit entry and its delivery record, a row
    that was told a fault may be tried again, and its neighbours are decided and counted."""
    seen = 0
    for n in range(2, 80):
        store = failing(single, n)
        tried, tenant = strangers(store)
        healthy = Store(single)
        healthy.keys, healthy.now = store.keys, store.now
        broken_breaker(healthy, tried)
        store.now = healthy.now
        asks = [full_ask(tried, "r"), full_ask(tenant, "before"), full_ask(tenant, "after")]
        first, before, after = store.decide(*asks)
        if not isinstance(first, RowFault):
            break
        seen += 1
        assert "injected" in first.message
        keys = store.of(tried)
        remembered = store.value(keys.idem(asks[0].plan.name))
        assert remembered is None
        assert store.actions(tried).count("decision.made") <= 2
        (again,) = healthy.decide(asks[0])
        assert isinstance(again, Admitted)
        assert healthy.record(task_id(again.decision_id)) is not None
        assert healthy.value(keys.idem(name_in(again.decision_id))) is not None
        neighbours_are_right(healthy, tenant, before, after)
    assert seen >= 20


def test_a_fault_before_the_charges_charges_nothing(single: Redis) -> None:
    """Until the audit record is written, a failing call leaves every counter, lease and pin as it was."""
    for n in range(2, 80):
        store = failing(single, n)
        tenant = store.tenant()
        (outcome,) = store.decide(full_ask(tenant, "r"))
        if store.actions(tenant):
            assert n > 10
            return
        assert isinstance(outcome, RowFault)
        keys = store.of(tenant)
        left = set(store.client.scan_iter(keys.prefix + b"*"))
        assert left == set()
    raise AssertionError("no call wrote an audit record")


def test_one_state_that_cannot_be_written(single: Redis) -> None:
    """When the write-back of one owner fails, every other owner's is written and the call is answered."""
    source = (lua_dir() / "include" / "flush.lua").read_text()
    source, found = re.subn(
        r"redis\.call\('SET', ", "(st.key:find(':tenant%-1:') and error or redis.call)('SET', ", source
    )
    assert found == 1
    store = Store(single, replace={"flush": source})
    tenants = [store.tenant() for _ in range(4)]
    p = policy("a", limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 1, MINUTE)])
    first = store.decide(*(Ask(request(t, "r"), p) for t in tenants))
    assert {type(o) for o in first} == {Admitted}
    second = store.decide(*(Ask(request(t, "s"), p) for t in tenants[1:]))
    assert {type(o) for o in second} == {LimitHit}


def test_last_resort_over_faults(store: Store) -> None:
    """A lease key of a wrong type under a forced candidate is a fault too, not a decision."""
    last = Breaker(failure_threshold=1, when_all_open=WhenAllOpen.LAST_RESORT)
    tenant = store.tenant()
    p = policy(provider("a", max_concurrency=1), breaker=last)
    made = store.one(request(tenant, "1"), p)
    assert isinstance(made, Admitted)
    store.settle(undispatched(tenant, made.decision_id, BreakerVerdict.FAILURE, last, provider_entry("a")))
    key = store.of(tenant).lease(provider_entry("a"))
    assert isinstance(store.one(request(tenant, "2"), p), NoCandidate)
    store.client.delete(key)
    store.client.set(key, "a string")
    assert isinstance(store.one(request(tenant, "3"), p), RowFault)


def test_the_folder_of_scripts_is_there() -> None:
    """The scripts travel with the package."""
    assert (Path(lua_dir()) / "decide.lua").is_file()
