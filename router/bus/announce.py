"""Tells the other pods that a tenant's policies have changed: a hint, at most once, which the store confirms.

A pod that misses one notices by the revision in the next decision of that tenant.
"""

import logging
from collections.abc import Callable

import msgspec

from router.bus.connection import Bus, Subscription
from router.errors import BusError
from router.telemetry.events import Event

log = logging.getLogger(__name__)

SUBJECT = "beamline.router.internal.v1.policy_changed"


class PolicyChanged(msgspec.Struct, frozen=True):
    """The announcement."""

    tenant_id: str
    revision: int


def announce(bus: Bus, tenant_id: str, revision: int) -> None:
    """Tell all pods, this one included.

    :raises BusError: it could not be queued.
    """
    bus.publish(SUBJECT, msgspec.json.encode(PolicyChanged(tenant_id, revision)))


class Announcements:
    """`usecases.policies.publish.Announcer`: a hint that may be lost, since every decide row tells as well."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """Tell all pods."""
        try:
            announce(self._bus, tenant_id, revision)
        except BusError as fault:
            log.info("a policy change was not announced: %s", fault)


async def listen(bus: Bus, on_change: Callable[[str, int], None]) -> Subscription:
    """`on_change(tenant_id, revision)` for each announcement that can be read; the others are logged."""

    def on_message(_subject: bytes, _reply: bytes, data: bytes, _raw: bytes | None) -> None:
        try:
            change = msgspec.json.decode(data, type=PolicyChanged)
        except msgspec.DecodeError as error:
            log.warning("a policy announcement cannot be read: %s", error, extra={"event": Event.POLICY_STALE})
            return
        on_change(change.tenant_id, change.revision)

    return await bus.subscribe(SUBJECT, on_message)
