"""Announcements to all pods that a tenant's policies have changed: hints, delivered at most once.

The store confirms each hint. A pod that misses one sees the new revision in the tenant's next decision.
"""

import logging
from collections.abc import Callable

import msgspec

from router.bus.client.connection import Bus
from router.bus.client.subscriptions import Subscription
from router.domain.json import UNREADABLE
from router.errors import BusError
from router.telemetry.events import Event
from router.wire import subjects

log = logging.getLogger(__name__)

SUBJECT = subjects.POLICY_CHANGED


class PolicyChanged(msgspec.Struct, frozen=True):
    """The body of an announcement."""

    tenant_id: str
    revision: int


def announce(bus: Bus, tenant_id: str, revision: int) -> None:
    """Announce a policy change to all pods, this one included.

    :raises BusError: the message could not be queued.
    """
    bus.publish(SUBJECT, msgspec.json.encode(PolicyChanged(tenant_id, revision)))


class Announcements:
    """Implements `ports.policies.Announcer`. A lost hint is harmless: every decide row has the revision too."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """Announce a policy change to all pods; a failure is only logged."""
        try:
            announce(self._bus, tenant_id, revision)
        except BusError as error:
            log.info("policy change not announced: %s", error)


async def listen(bus: Bus, on_change: Callable[[str, int], None]) -> Subscription:
    """Call `on_change(tenant_id, revision)` for each announcement; an unreadable one is logged."""

    def on_message(_subject: bytes, _reply: bytes, data: bytes, _raw: bytes | None) -> None:
        try:
            change = msgspec.json.decode(data, type=PolicyChanged)
        except UNREADABLE as error:
            log.warning("unreadable policy announcement: %s", error, extra={"event": Event.POLICY_STALE})
            return
        on_change(change.tenant_id, change.revision)

    return await bus.subscribe(SUBJECT, on_message)
