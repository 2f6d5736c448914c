"""Names of keys: every key that is really written is in the table, with its type, its life time and its partition."""

import re
from collections.abc import Iterable

import pytest
from msgspec.structs import replace
from redis.crc import key_slot

from router.domain.decide.outcome import Admitted
from router.domain.decide.request import Step
from router.domain.ids import partition_of, task_id
from router.domain.policy.model import Breaker, provider_entry
from router.domain.tasks.result import BreakerVerdict, Measurements
from router.store.key_kinds import KEYS
from router.store.keys import Keys
from router.store.tags import partition_tags
from tests.store.full import full, full_ask
from tests.store.harness import Store, request, undispatched

_FIELD = {"schema": rb"\w+", "p": rb"[a-z0-9]{2,3}", "name": rb".{10}", "task": rb".{16}"}


def pattern(kind: str) -> re.Pattern[bytes]:
    """The key pattern of a kind as a regular expression."""
    parts = re.split(r"<(\w+)>|\{(p)\}", KEYS[kind].pattern)
    out = b""
    for i in range(0, len(parts), 3):
        out += re.escape(parts[i].encode())
        if i + 1 < len(parts):
            name = parts[i + 1] or parts[i + 2]
            field = _FIELD.get(name, rb"[^~].*?")
            out += rb"\{" + field + rb"\}" if parts[i + 2] else field
    return re.compile(out, re.DOTALL)


def kinds_of(key: bytes) -> list[str]:
    """Which kinds a key may be."""
    return [k for k in KEYS if pattern(k).fullmatch(key)]


@pytest.mark.parametrize("partitions", [1, 3, 64, 1000, 4096])
def test_tags_spread_over_the_slots(partitions: int) -> None:
    """Partition p's tag lies in the p-th of as many equal parts of the slots; every version chooses the same."""
    tags = partition_tags(partitions)
    assert len(set(tags)) == partitions
    assert [key_slot(t) * partitions // 16384 for t in tags] == list(range(partitions))


def test_the_first_tags_are_fixed() -> None:
    """Changing them would lose every key of a running fleet."""
    assert partition_tags(64)[:6] == (b"bh", b"bd", b"by", b"bq", b"aa", b"ai")
    assert partition_tags(64)[63] == b"fr"


@pytest.mark.parametrize("partitions", [0, -1, 4097])
def test_partitions_have_a_bound(partitions: int) -> None:
    """Another number is refused, not bent."""
    with pytest.raises(ValueError, match="must be 1 to 4096"):
        partition_tags(partitions)


def test_all_keys_of_a_tenant_have_one_slot() -> None:
    """Whatever a row of a tenant may name lies in the slot of its partition's tag."""
    keys = Keys()
    for n in range(300):
        tenant = keys.tenant(f"tenant.{n}")
        task = tenant.partition.to_bytes(2) + bytes(14)
        made: Iterable[bytes] = (
            tenant.head,
            tenant.policies,
            tenant.state,
            tenant.audit,
            tenant.due,
            tenant.history("p{x}"),
            tenant.policy_state("p{x}"),
            tenant.user_state("u}{"),
            tenant.provider_state("v"),
            tenant.lease(b"}{"),
            tenant.idem(b"{}{}{}{}{}"),
            tenant.claim(b"{}{}{}{}{}"),
            tenant.message("{}"),
            tenant.steps(b"{}{}{}{}{}"),
            tenant.task(task),
            tenant.job(task),
            tenant.wait,
            keys.outbox(tenant.partition),
        )
        assert {key_slot(k) for k in made} == {key_slot(keys.tag(tenant.partition))}


def test_tenants_spread_over_the_partitions() -> None:
    """Of 64,000 tenants every partition has between 800 and 1,200."""
    counts = [0] * 64
    for n in range(64_000):
        counts[partition_of(f"tenant-{n}", 64)] += 1
    assert min(counts) > 800
    assert max(counts) < 1_200


def test_no_tenant_reaches_anothers_keys(store: Store) -> None:
    """A tenant named like another's prefix shares no key with it, and none can be named like the shared keys."""
    keys = Keys()
    one, two = keys.tenant("a"), keys.tenant("a.s")
    assert not {one.state, one.head, one.audit} & {two.state, two.head, two.audit}
    assert b":~:" in one.due


def test_every_key_that_is_written_is_in_the_table(store: Store) -> None:
    """After decisions and results of every kind: each key has exactly one row of the table, its type, and a life time
    unless the row says none or names a bound."""
    tenant = store.tenant()
    store.preview(request(tenant, "looked at"), full(), claim_ms=1_000)
    store.one(replace(request(tenant, "three", message_id="m"), step=Step("503", "a")), full())
    first, second = store.decide(full_ask(tenant, "one"), full_ask(tenant, "two"))
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    told = {"usage": b"u", "taught": Measurements(120, 30)}
    store.settle(
        undispatched(tenant, first.decision_id, BreakerVerdict.FAILURE, Breaker(), provider_entry("a"), **told)
    )
    seen = set()
    for key in store.client.scan_iter(store.keys.schema.encode() + b"*"):
        if b":clock:" in key:
            continue
        kinds = kinds_of(key)
        assert len(kinds) == 1, (key, kinds)
        kind = KEYS[kinds[0]]
        seen.add(kinds[0])
        assert store.client.type(key) == kind.type.encode(), key
        ttl: object = store.client.pttl(key)
        assert isinstance(ttl, int)
        assert (ttl > 0) == (kind.ttl != "none" and not kind.ttl.startswith("bounded")), (key, ttl)
    others = {"meta", "epochs", "extensions", "head", "policies", "history", "acts", "unknown", "audit_marks", "retain"}
    others |= {"census", "strikes", "final", "wait"}
    assert seen | others == set(KEYS)
    assert not seen & others
    assert store.value(store.keys.task(task_id(first.decision_id))) is not None
