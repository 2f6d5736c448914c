"""The log of refusals whose tenant is unknown: what is written, found, and left out."""

from router.domain.audit.records import UnknownTenant
from router.store.audit.unknown_tenants import RedisUnknownTenants
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode

HOUR_MS = 3_600_000


def refusal(n: int) -> UnknownTenant:
    """One record with a value of its own in each field."""
    return UnknownTenant(f"tenant-{n}", f"policy-{n}", f"code-{n}", n, f"request-{n}", f"10.0.0.{n}", f"trace-{n}")


async def test_the_newest_are_found_first(plain: SingleNode, keys: Keys) -> None:
    """At most as many as are asked for."""
    log = RedisUnknownTenants(keys, plain, HOUR_MS)
    await log.record([refusal(n) for n in (1, 2, 3)])
    assert [entry.tenant_id for entry in await log.newest(2)] == ["tenant-3", "tenant-2"]


async def test_an_entry_has_every_field_of_its_record(plain: SingleNode, keys: Keys) -> None:
    """None is swapped with another."""
    log = RedisUnknownTenants(keys, plain, HOUR_MS)
    await log.record([refusal(7)])
    (entry,) = await log.newest(10)
    assert (entry.tenant_id, entry.resource_id, entry.outcome) == ("tenant-7", "request-7", "code-7")
    assert (entry.ip_address, entry.trace_id, entry.user_id) == ("10.0.0.7", "trace-7", None)
    assert entry.details == {"request_id": "request-7", "policy_id": "policy-7", "times": 7}
    assert entry.ts_us == int(entry.id.partition("-")[0]) * 1000


async def test_the_log_ends_a_while_after_its_last_record(plain: SingleNode, keys: Keys) -> None:
    """Each record renews its life."""
    log = RedisUnknownTenants(keys, plain, HOUR_MS)
    await log.record([refusal(1)])
    await plain.call("PEXPIRE", keys.unknown, 1_000)
    await log.record([refusal(2)])
    assert HOUR_MS - 60_000 < await plain.call("PTTL", keys.unknown) <= HOUR_MS


async def test_a_record_of_another_version_hides_no_other(plain: SingleNode, keys: Keys) -> None:
    """A newer format and a damaged record are left out."""
    log = RedisUnknownTenants(keys, plain, HOUR_MS)
    await plain.call("XADD", keys.unknown, "*", "r", b"\x09newer")
    await plain.call("XADD", keys.unknown, "*", "r", b"\x01damaged")
    await log.record([refusal(1)])
    assert [entry.tenant_id for entry in await log.newest(10)] == ["tenant-1"]


async def test_no_log_is_no_entries(plain: SingleNode, keys: Keys) -> None:
    """Nobody was refused so far."""
    assert await RedisUnknownTenants(keys, plain, HOUR_MS).newest(10) == []
