"""A policy publisher for one command: it writes to the store, and announces the change to the pods."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from router.cli.shared.output import note
from router.cli.shared.target import settings_for

if TYPE_CHECKING:
    from router.settings import Settings
    from router.usecases.policies.publish import PolicyPublisher

T = TypeVar("T")
Act = Callable[["PolicyPublisher"], Awaitable[T]]


class Changes:
    """Collects the changes to announce. They are in the store already, so pods notice them in any case."""

    def __init__(self) -> None:
        self.all: list[tuple[str, int]] = []

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """See `publish_policy.Announcer`."""
        self.all.append((tenant_id, revision))


def with_publisher(act: Act[T], *, redis: str | None, nats: str | None) -> T:
    """Run `act`, announce every change, and return the result. A NATS that does not take it is only noted.

    :raises StoreError: Redis did not answer.
    """
    return asyncio.run(_with_publisher(act, settings_for(redis=redis, nats=nats)))


async def _with_publisher(act: Act[T], settings: "Settings") -> T:
    from router.app.adapter_settings import policy_bounds, quotas
    from router.cli.shared.connections import open_store
    from router.domain.audit.records import Actor
    from router.store.policies import RedisPolicies
    from router.usecases.policies.publish import PolicyPublisher

    changes = Changes()
    async with open_store(settings) as store:
        policies = RedisPolicies(store.nodes, store.keys, bounds=policy_bounds(settings), replicas=store.replicas)
        result = await act(PolicyPublisher(policies, changes, Actor(principal=settings.principal), quotas(settings)))
    await announced(settings, changes)
    return result


async def announced(settings: "Settings", changes: Changes) -> None:
    """Announce the changes to the pods; a NATS that does not take it is only noted."""
    if changes.all and (why := await _announce(settings, changes.all)) is not None:
        note(f"stored, but not announced: each pod notices it with its next decision for the tenant ({why})")


async def _announce(settings: "Settings", changes: list[tuple[str, int]]) -> str | None:
    """Announce the changes; the result is why that failed, if it did."""
    import time

    from router.bus.announce import SUBJECT, announce
    from router.cli.shared.bus import open_bus
    from router.cli.shared.exits import exit_code_of
    from router.errors import BusError

    try:
        async with open_bus(settings) as bus:
            began = time.monotonic()
            for tenant_id, revision in changes:
                announce(bus, tenant_id, revision)
            await bus.check_published(SUBJECT, began)
    except BusError as error:
        return exit_code_of(error)[1].removeprefix("error: ")
    return None
