"""Operators' levers: drain a provider, hold a breaker open, switch a tenant off, forget an answer.

An unknown name is refused before any write, and the refusal lists the known names. Otherwise an operator could mistake
a lever without effect for one that works.
"""

from collections.abc import Iterable
from typing import assert_never

from msgspec import Struct

from router.domain.audit.records import Actor
from router.domain.ids import idempotency_name
from router.domain.levers import ActOutcome, BreakerView, TenantHead
from router.domain.policy.model import TenantPolicies, provider_entry
from router.errors import InvalidInput, Problem
from router.ports.policies import LeverStore, PolicyReader
from router.ports.tenants import Inspector
from router.usecases.policies.publish import check_ids

MAX_NAMED = 20
LONGEST_TEXT = 256


class ProviderView(Struct, frozen=True):
    """A provider that a tenant's policies name or that a lever applies to. `breaker` None: closed, without failures.

    `name` is the store's entry in hexadecimal if no policy names the provider.
    """

    name: str
    policies: tuple[str, ...]
    drained: bool
    breaker: BreakerView | None


class TenantProviders(Struct, frozen=True):
    """A tenant's switch and its providers, sorted by name. `off`: an operator has disabled the tenant."""

    tenant_id: str
    off: bool
    providers: tuple[ProviderView, ...]


class OverrideService:
    """Pulls levers on behalf of `by`. Every act returns whether it changed the store, and may raise:

    :raises InvalidInput: tenant or provider is unknown (the message lists the known), or the tenant's levers are full.
    :raises StoreError: the store did not answer.
    """

    def __init__(self, store: LeverStore, inspector: Inspector, policies: PolicyReader, by: Actor) -> None:
        self._store = store
        self._inspector = inspector
        self._policies = policies
        self._by = by

    async def drain(self, tenant_id: str, *, provider: str, on: bool, why: str | None = None) -> bool:
        """Give the provider no new work, or (`on` False) give it work again. Running tasks continue."""
        check_texts(tenant_id, provider_id=provider, why=why)
        await self._provider_is_known(tenant_id, provider=provider)
        return await self._changed(
            tenant_id, await self._store.drain(tenant_id, provider=provider, on=on, by=self._by, why=why)
        )

    async def force_open(self, tenant_id: str, *, provider: str, why: str | None = None) -> bool:
        """Hold the provider's breaker open until an operator resets it."""
        check_texts(tenant_id, provider_id=provider, why=why)
        await self._provider_is_known(tenant_id, provider=provider)
        return await self._changed(
            tenant_id, await self._store.force_open(tenant_id, provider=provider, by=self._by, why=why)
        )

    async def reset(self, tenant_id: str, *, provider: str, why: str | None = None) -> bool:
        """Close the provider's breaker, forced or tripped, and clear its counts."""
        check_texts(tenant_id, provider_id=provider, why=why)
        await self._provider_is_known(tenant_id, provider=provider)
        return await self._changed(
            tenant_id, await self._store.reset_breaker(tenant_id, provider=provider, by=self._by, why=why)
        )

    async def switch(self, tenant_id: str, *, on: bool, why: str | None = None) -> bool:
        """Enable the tenant (`on`), or refuse its new requests. Replays and running tasks are not affected."""
        check_texts(tenant_id, why=why)
        return await self._changed(tenant_id, await self._store.switch(tenant_id, on=on, by=self._by, why=why))

    async def forget(
        self,
        tenant_id: str,
        *,
        request_id: str | None = None,
        idempotency_key: str | None = None,
        why: str | None = None,
    ) -> bool:
        """Forget the answer of one request, named by exactly one of the two ids. False: no answer is remembered.

        Answers to the caller's own fallback steps of that request have other names and stay.
        """
        check_texts(tenant_id, request_id=request_id, idempotency_key=idempotency_key, why=why)
        if (request_id is None) == (idempotency_key is None):
            raise InvalidInput(
                [
                    Problem(
                        "request_id", message="exactly one name is needed", hint="either request_id or idempotency_key"
                    )
                ]
            )
        if idempotency_key is None:
            called = "request_id", request_id or ""
            name = idempotency_name(tenant_id, "request", called[1])
        else:
            called = "idempotency_key", idempotency_key
            name = idempotency_name(tenant_id, "key", called[1])
        outcome = await self._store.forget(tenant_id, name, called=called, by=self._by, why=why)
        return await self._changed(tenant_id, outcome)

    async def providers(self, tenant_id: str) -> TenantProviders:
        """List the tenant's providers with their policies, levers and breakers."""
        check_ids(tenant_id)
        head = await self._head(tenant_id)
        named = await self._named(tenant_id)
        names = {provider_entry(name): name for name in named}
        breakers = {b.provider_entry: b for b in await self._inspector.breakers(tenant_id)}
        views = [
            ProviderView(
                names.get(entry, entry.hex()),
                named.get(names.get(entry, ""), ()),
                entry in head.drained,
                breakers.get(entry),
            )
            for entry in {*names, *head.drained, *head.forced}
        ]
        return TenantProviders(tenant_id, head.off, tuple(sorted(views, key=lambda v: v.name)))

    async def tenants(self) -> list[TenantHead]:
        """List every tenant that has, or had, a policy (at most 10,000)."""
        return await self._inspector.heads()

    async def names(self, tenant_id: str) -> dict[bytes, str]:
        """Map each store entry to its provider name, for all providers in the tenant's policies."""
        return {provider_entry(name): name for name in await self._named(tenant_id)}

    async def _head(self, tenant_id: str) -> TenantHead:
        for head in await self._inspector.heads(tenant_id):
            return head
        raise await self._unknown_tenant(tenant_id)

    async def _named(self, tenant_id: str) -> dict[str, tuple[str, ...]]:
        return named_providers(await self._policies.load(tenant_id))

    async def _provider_is_known(self, tenant_id: str, *, provider: str) -> None:
        named = await self._named(tenant_id)
        if provider in named:
            return
        head = await self._head(tenant_id)
        if provider_entry(provider) not in head.drained | head.forced:
            hint = f"there are {_listed(named)}" if named else "the tenant has no policy"
            raise InvalidInput(
                [Problem("provider_id", message=f"tenant {tenant_id} has no provider {provider}", hint=hint)]
            )

    async def _changed(self, tenant_id: str, outcome: ActOutcome) -> bool:
        match outcome:
            case ActOutcome.CHANGED:
                return True
            case ActOutcome.UNCHANGED:
                return False
            case ActOutcome.UNKNOWN_TENANT:
                raise await self._unknown_tenant(tenant_id)
            case ActOutcome.FULL:
                message = f"tenant {tenant_id} has the maximum number of levers"
                raise InvalidInput([Problem("tenant_id", message=message, hint="release some first")])
            case _:
                assert_never(outcome)

    async def _unknown_tenant(self, tenant_id: str) -> InvalidInput:
        tenant_ids = [h.tenant_id for h in await self.tenants()]
        hint = f"there are {_listed(tenant_ids)}" if tenant_ids else "no tenant has a policy yet"
        return InvalidInput([Problem("tenant_id", message=f"there is no tenant {tenant_id}", hint=hint)])


def named_providers(policies: TenantPolicies | None) -> dict[str, tuple[str, ...]]:
    """Map every provider in a tenant's policies, fallbacks included, to the ids of the policies that name it."""
    policy_ids: dict[str, list[str]] = {}
    for stored in () if policies is None else policies.policies.values():
        for provider in (*stored.policy.providers, *stored.policy.fallback_providers):
            names = policy_ids.setdefault(provider.name, [])
            if stored.policy_id not in names:
                names.append(stored.policy_id)
    return {name: tuple(ids) for name, ids in policy_ids.items()}


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - MAX_NAMED} more" if len(ordered) > MAX_NAMED else ""
    return ", ".join(ordered[:MAX_NAMED]) + more


def check_texts(tenant_id: str, **texts: str | None) -> None:
    """Refuse an invalid tenant id, and texts that are empty, too long or not on one line.

    :raises InvalidInput: with every problem.
    """
    check_ids(tenant_id)
    hint = f"1 to {LONGEST_TEXT} characters on one line"
    problems = [
        Problem(path, message="is empty, too long or holds control characters", hint=hint)
        for path, text in texts.items()
        if text is not None and not (0 < len(text) <= LONGEST_TEXT and text.isprintable())
    ]
    if problems:
        raise InvalidInput(problems)
