"""`ports.tenants.Inspector` on Redis: decodes packed states for operators. It changes nothing and runs no script."""

import logging
import struct
from collections.abc import Callable
from struct import Struct as Layout
from typing import TypeVar

from msgspec.structs import replace

from router.domain.levers import BreakerState, BreakerView, TenantHead
from router.errors import StoreError
from router.store.keys import Keys
from router.store.packing import FORMAT, FormatError, head
from router.store.servers.nodes import Nodes

LIMIT_BYTES = 132
MAX_TENANTS = 10_000

# The head of a breaker (lua/include/breaker.lua); rate ring and probes follow it.
_BREAKER = Layout(">8sBddIBdId80sB")
_PROBE_BYTES = 16
_STATES = (BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN)
_SCAN = 1000

T = TypeVar("T")
log = logging.getLogger(__name__)


class RedisInspector:
    """Reads states; the port has the promises."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes

    async def breakers(self, tenant_id: str | None = None) -> list[BreakerView]:
        """See `ports.tenants.Inspector.breakers`."""
        if tenant_id is None:
            tenants = sorted({*await self._tenants("s"), *await self._tenants("head")})
        else:
            tenants = [tenant_id]
        states = await self._nodes.gather([("GET", self._keys.tenant(t).state) for t in tenants])
        heads = {h.tenant_id: h for h in await self._heads(tenants, alone=tenant_id is not None)}
        views: list[BreakerView] = []
        for tenant, raw in zip(tenants, states, strict=True):
            stored = self._readable(tenant, breakers_in, raw, alone=tenant_id is not None) or []
            views += _with_forced(tenant, stored, heads[tenant].forced if tenant in heads else frozenset())
        return views

    async def heads(self, tenant_id: str | None = None) -> list[TenantHead]:
        """See `ports.tenants.Inspector.heads`."""
        tenants = await self._tenants("head") if tenant_id is None else [tenant_id]
        return await self._heads(tenants, alone=tenant_id is not None)

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

    async def _tenants(self, kind: str) -> list[str]:
        """Tenants that have a key of this kind, at most 10,000; scanned in steps, so that no node is blocked."""
        prefix = f"{self._keys.schema}:"
        tenant_ids: set[str] = set()
        for key in await self._nodes.scan(f"{prefix}{{*}}:*:{kind}", _SCAN, MAX_TENANTS):
            parts = key.decode(errors="replace").split(":")
            if len(parts) == 4 and parts[3] == kind:
                tenant_ids.add(parts[2])
        return sorted(tenant_ids)


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
    except (IndexError, struct.error) as fault:
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
