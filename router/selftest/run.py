"""All checks in order. A failed check does not stop the others; the tenant is removed at the end."""

from collections.abc import Awaitable, Callable

from router.errors import BusError, StoreError
from router.redaction import redacted
from router.selftest.check import Check, NotChecked, NotSeen, Verdict
from router.selftest.fleet import FleetChecks
from router.selftest.nats import NatsChecks
from router.selftest.redis import RedisChecks
from router.selftest.sentinels import SentinelChecks

Act = Callable[[], Awaitable[str]]


async def run(
    redis: RedisChecks, nats: NatsChecks, fleet: FleetChecks, sentinels: SentinelChecks | None = None
) -> list[Check]:
    """Run the checks and return their results."""
    checks: tuple[tuple[str, Act], ...] = (
        ("Redis version", redis.version),
        ("Redis eviction", redis.eviction),
        ("Redis persistence", redis.persistence),
        ("Redis clock", redis.clock),
        *(() if sentinels is None else (("Redis sentinels", sentinels.agree),)),
        ("NATS version", nats.version),
        ("streams and consumers", nats.streams),
        ("request subjects", nats.request_subjects),
        ("a pod decides", fleet.begin),
        ("one counter for all pods", fleet.one_counter),
        ("several pods answer", fleet.several_pods),
    )
    results: list[Check] = []
    try:
        for name, act in checks:
            results.append(await _result(name, act))
    finally:
        results.append(await _result("cleaned up", fleet.clean_up))
    return results


async def _result(name: str, act: Act) -> Check:
    try:
        return Check(name, Verdict.OK, await act())
    except NotChecked as why:
        return Check(name, Verdict.NOT_CHECKED, redacted(str(why)))
    except (NotSeen, StoreError, BusError) as fault:
        return Check(name, Verdict.FAILED, redacted(str(fault)))
