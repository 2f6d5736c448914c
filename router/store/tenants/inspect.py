"""`ports.tenants.Inspector` on Redis: decodes packed states for operators. It changes nothing and runs no script."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from struct import Struct as Layout
from typing import TypeVar

from msgspec.structs import replace

from router.chunks import chunks
from router.domain.levers import BreakerState, BreakerView, TenantHead
from router.errors import StoreError
from router.store.keys import Keys
from router.store.packing import DAMAGE, FORMAT, FormatError, head
from router.store.servers.nodes import Nodes
from router.store.tenants.names import TenantNames, in_order

LIMIT_BYTES = 132

# The head of a breaker (lua/include/breaker.lua); rate ring and probes follow it.
_BREAKER = Layout(">8sBddIBdId80sB")
_PROBE_BYTES = 16
_STATES = (BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN)
_PAGE = 64

T = TypeVar("T")
log = logging.getLogger(__name__)


class RedisInspector:
    """Reads states; the port has the promises."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes
        self._names = TenantNames(keys, nodes, time.monotonic)

    async def breakers(self, tenant_id: str) -> list[BreakerView]:
        """See `ports.tenants.Inspector.breakers`."""
        return await self._breakers([tenant_id], alone=True)

    async def all_breakers(self, after: str = "") -> AsyncIterator[list[BreakerView]]:
        """See `ports.tenants.Inspector.all_breakers`."""
        async for page in self._pages("s", "head", after=after):
            yield await self._breakers(page, alone=False)

    async def heads(self, tenant_id: str | None = None) -> list[TenantHead]:
        """See `ports.tenants.Inspector.heads`."""
        if tenant_id is not None:
            return await self._heads([tenant_id], alone=True)
        heads: list[TenantHead] = []
        async for page in self._pages("head"):
            heads += await self._heads(page, alone=False)
        return heads

    async def _pages(self, *kinds: str, after: str = "") -> AsyncIterator[list[str]]:
        """Yield the tenants that have such keys, a few at a time; decisions run between them."""
        tenants = [t for t in await self._names.of(*kinds) if in_order(t) >= in_order(after)]
        for page in chunks(tenants, _PAGE):
            yield page
            await asyncio.sleep(0)

    async def _breakers(self, tenants: list[str], *, alone: bool) -> list[BreakerView]:
        states = await self._nodes.gather([("GET", self._keys.tenant(t).state) for t in tenants])
        heads = {h.tenant_id: h for h in await self._heads(tenants, alone=alone)}
        views: list[BreakerView] = []
        for tenant, raw in zip(tenants, states, strict=True):
            stored = self._readable(tenant, breakers_in, raw, alone=alone) or []
            views += _with_forced(tenant, stored, heads[tenant].forced if tenant in heads else frozenset())
        return views

    async def _heads(self, tenants: list[str], *, alone: bool) -> list[TenantHead]:
        raws = await self._nodes.gather([("GET", self._keys.tenant(t).head) for t in tenants])
        views = (self._readable(t, head, raw, alone=alone) for t, raw in zip(tenants, raws, strict=True))
        return [view for view in views if view is not None]

    @staticmethod
    def _readable(tenant_id: str, read: Callable[[str, bytes], T], raw: bytes | None, *, alone: bool) -> T | None:
        """The decoded value of a tenant, or None. Among many tenants, an unreadable value is logged and left out.

        :raises StoreError: the value is unreadable, and its tenant is the only one requested (`alone`).
        """
        try:
            return read(tenant_id, raw) if raw else None
        except FormatError as fault:
            if alone:
                raise StoreError(f"tenant {tenant_id}: {fault}") from fault
            log.error("a value of a tenant is unreadable: %s", fault, extra={"tenant_id": tenant_id})
            return None


def _with_forced(tenant_id: str, stored: list[BreakerView], forced: frozenset[bytes]) -> list[BreakerView]:
    """The stored breakers, with the ones that operators hold open marked as open."""
    views = [
        replace(v, state=BreakerState.OPEN, next_probe_at_ms=0, forced=True) if v.provider_entry in forced else v
        for v in stored
    ]
    without_state = forced - {v.provider_entry for v in stored}
    return [
        *views,
        *(
            BreakerView(
                tenant_id=tenant_id,
                provider_entry=e,
                state=BreakerState.OPEN,
                opened_at_ms=0,
                next_probe_at_ms=0,
                failures_in_a_row=0,
                forced=True,
            )
            for e in sorted(without_state)
        ),
    ]


def breakers_in(tenant_id: str, raw: bytes) -> list[BreakerView]:
    """Decode the breakers of a tenant's state.

    :raises FormatError: not a format that this version reads, or damaged.
    """
    try:
        return _breakers_in(tenant_id, raw)
    except DAMAGE as fault:
        raise FormatError(f"state: {fault}") from fault


def _breakers_in(tenant_id: str, raw: bytes) -> list[BreakerView]:
    if raw[0] != FORMAT:
        raise FormatError(f"state of format {raw[0]}")
    at = 2 + raw[1] * LIMIT_BYTES
    views: list[BreakerView] = []
    while at < len(raw):
        entry, state, opened, until, failures, _, _, _, _, _, probes = _BREAKER.unpack_from(raw, at)
        if state == 0:
            # In a closed breaker these are the times of its slow start.
            opened = until = 0
        views.append(
            BreakerView(
                tenant_id=tenant_id,
                provider_entry=entry,
                state=_STATES[state],
                opened_at_ms=int(opened),
                next_probe_at_ms=int(until),
                failures_in_a_row=failures,
            )
        )
        at += _BREAKER.size + probes * _PROBE_BYTES
    return views
