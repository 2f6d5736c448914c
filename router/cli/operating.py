"""An operator for one command: the store whose levers it pulls, in the name of whom."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from router.cli.target import settings_for

if TYPE_CHECKING:
    from router.store.inspect import RedisInspector
    from router.store.policies import RedisPolicies
    from router.store.tenants import RedisTenants
    from router.usecases.admin.overrides import Operator

T = TypeVar("T")


class Room:
    """What commands look at, and the operator who pulls levers."""

    def __init__(
        self, inspector: "RedisInspector", operator: "Operator", policies: "RedisPolicies", tenants: "RedisTenants"
    ) -> None:
        self.inspector = inspector
        self.operator = operator
        self.policies = policies
        self.tenants = tenants

    async def names(self, tenant_id: str) -> dict[bytes, str]:
        """Providers by their entries."""
        return await self.operator.names(tenant_id)


def operate(act: "Callable[[Operator], Awaitable[T]]", redis: str | None) -> T:
    """As `in_room`, for acts that need the operator only."""
    return in_room(lambda room: act(room.operator), redis)


def in_room(act: Callable[[Room], Awaitable[T]], redis: str | None) -> T:
    """What `act` returns, in the name of ROUTER_PRINCIPAL.

    :raises InvalidInput: a name is unknown.
    :raises StoreError: Redis did not answer.
    """

    async def run() -> T:
        from router.app.adapter_settings import audit_ms
        from router.cli.room import store
        from router.domain.audit import Actor
        from router.store.inspect import RedisInspector
        from router.store.levers import RedisLevers, lever_scripts
        from router.store.policies import RedisPolicies
        from router.store.tenants import RedisTenants
        from router.usecases.admin.overrides import Operator

        settings = settings_for(redis=redis)
        async with store(settings) as room:
            levers = RedisLevers(room.keys, room.nodes, lever_scripts(), audit_ms=audit_ms(settings))
            inspector = RedisInspector(room.keys, room.nodes)
            policies = RedisPolicies(room.nodes, room.keys)
            operator = Operator(levers, inspector, policies, Actor(settings.principal))
            return await act(Room(inspector, operator, policies, RedisTenants(room.keys, room.nodes)))

    return asyncio.run(run())
