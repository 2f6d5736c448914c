"""The services of commands that pull levers or read a tenant, in the name of ROUTER_PRINCIPAL."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from router.cli.shared.output import print_json
from router.cli.shared.target import settings_for

if TYPE_CHECKING:
    from router.store.policies import RedisPolicies
    from router.store.tenants.inspect import RedisInspector
    from router.store.tenants.walk import RedisTenants
    from router.usecases.admin.overrides import OverrideService

T = TypeVar("T")

WhyOption = Annotated[str | None, typer.Option("--why", help="The reason, for the audit log.")]


class Services:
    """The services that a command may use; all share one connection."""

    def __init__(
        self,
        inspector: "RedisInspector",
        overrides: "OverrideService",
        policies: "RedisPolicies",
        tenants: "RedisTenants",
    ) -> None:
        self.inspector = inspector
        self.overrides = overrides
        self.policies = policies
        self.tenants = tenants

    async def names(self, tenant_id: str) -> dict[bytes, str]:
        """Provider names by their entry (8 bytes)."""
        return await self.overrides.names(tenant_id)


def override(act: "Callable[[OverrideService], Awaitable[T]]", redis: str | None) -> T:
    """As `with_services`, for commands that only pull levers."""
    return with_services(lambda services: act(services.overrides), redis)


def with_services(act: Callable[[Services], Awaitable[T]], redis: str | None) -> T:
    """Run `act` on an open store and return its result.

    :raises InvalidInput: a name is unknown.
    :raises StoreError: Redis did not answer.
    """

    async def run() -> T:
        from router.app.adapter_settings import audit_ms
        from router.cli.shared.connections import open_store
        from router.domain.audit.records import Actor
        from router.store.levers import RedisLevers, lever_scripts
        from router.store.policies import RedisPolicies
        from router.store.tenants.inspect import RedisInspector
        from router.store.tenants.walk import RedisTenants
        from router.usecases.admin.overrides import OverrideService

        settings = settings_for(redis=redis)
        async with open_store(settings) as store:
            levers = RedisLevers(
                store.keys, store.nodes, lever_scripts(), audit_ms=audit_ms(settings), replicas=store.replicas
            )
            inspector = RedisInspector(store.keys, store.nodes)
            policies = RedisPolicies(store.nodes, store.keys)
            overrides = OverrideService(levers, inspector, policies, Actor(principal=settings.principal))
            return await act(Services(inspector, overrides, policies, RedisTenants(store.keys, store.nodes)))

    return asyncio.run(run())


def print_change(json: bool, *, changed: bool, what: str, **facts: object) -> None:
    """Print what an override changed: `what` is a sentence for people, `facts` the fields of the JSON."""
    if json:
        print_json(facts | {"changed": changed})
    else:
        typer.echo(what if changed else f"{what} already; nothing was changed")
