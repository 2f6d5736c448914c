"""A publisher of policies for one command: the store it writes to, and the word to the pods afterwards."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from router.cli.output import note
from router.cli.target import settings_for

if TYPE_CHECKING:
    from router.settings import Settings
    from router.usecases.policies.publish import PolicyPublisher

T = TypeVar("T")
Act = Callable[["PolicyPublisher"], Awaitable[T]]


class Changes:
    """Collects what is to be announced; the store is written by then, and the pods notice it in any case."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """See `publish_policy.Announcer`."""
        self.made.append((tenant_id, revision))


def with_publisher(act: Act[T], *, redis: str | None, nats: str | None) -> T:
    """What `act` returns; then every change it made is announced. A NATS that is away is only mentioned.

    :raises StoreError: Redis did not answer.
    """
    return asyncio.run(_with_publisher(act, settings_for(redis=redis, nats=nats)))


async def _with_publisher(act: Act[T], settings: "Settings") -> T:
    from router.app.adapter_settings import policy_bounds, quotas
    from router.cli.room import store
    from router.domain.audit import Actor
    from router.store.policies import RedisPolicies
    from router.usecases.policies.publish import PolicyPublisher

    changes = Changes()
    async with store(settings) as room:
        policies = RedisPolicies(room.nodes, room.keys, bounds=policy_bounds(settings))
        result = await act(PolicyPublisher(policies, changes, Actor(settings.principal), quotas(settings)))
    await announced(settings, changes)
    return result


async def announced(settings: "Settings", changes: Changes) -> None:
    """Tell the pods what was changed; a NATS that is away is only mentioned."""
    if changes.made and not await _announce(settings, changes.made):
        note("NATS could not be reached: each pod notices the change with its next decision for the tenant")


async def _announce(settings: "Settings", changes: list[tuple[str, int]]) -> bool:
    from router.bus.announce import announce
    from router.cli.streams import bus_of
    from router.errors import BusError

    try:
        async with bus_of(settings) as bus:
            for tenant_id, revision in changes:
                announce(bus, tenant_id, revision)
            await bus.flush()
    except BusError:
        return False
    return True
