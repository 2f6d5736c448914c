"""Counts of refusals of unknown tenants: written once, whoever writes."""

import asyncio
from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from router.domain.audit.records import AuditEntry, UnknownTenant
from router.domain.decide.decision import Code, Refused
from router.domain.decide.request import DecideRequest
from router.telemetry import Telemetry
from router.usecases.audit.unknown_tenants import UnknownTenants


class SlowLog:
    """A log that takes a turn of the loop to write."""

    def __init__(self) -> None:
        self.written: list[int] = []

    async def record(self, refusals: Sequence[UnknownTenant]) -> None:
        """Write."""
        self.written += [refusal.times for refusal in refusals]
        await asyncio.sleep(0)

    async def newest(self, maximum: int) -> list[AuditEntry]:
        """Not used here."""
        raise AssertionError(maximum)


async def test_two_writers_at_once_count_each_refusal_once() -> None:
    """The pod's loop and its drain may write in the same moment."""
    log = SlowLog()
    unknown = UnknownTenants(log, Telemetry(CollectorRegistry()))
    for _ in range(3):
        unknown.refused(DecideRequest("t", "r", "p", "chat", bytes(8)), Refused(Code.POLICY_NOT_FOUND, "no"))
    await asyncio.gather(unknown.flush(), unknown.flush())
    assert log.written == [3]
