"""GET /v1/decisions/{id}: a stored decision, with the state of its task."""

from collections.abc import Awaitable, Callable, Mapping

import orjson

from router.domain.api_key import Asker
from router.domain.decide.decision import Code, Refused
from router.edge.api.messages import Reply, refused, reply_of
from router.wire.subjects import GET_DECISION

MAX_AT_ONCE = 64

GetDecision = Callable[[bytes, Mapping[str, str], str], Awaitable[tuple[bytes, Mapping[str, str]]]]
"""`await get_decision(data, headers, subject)` → the body of the reply, and its headers."""

_NOT_FOUND = Refused(Code.DECISION_NOT_FOUND, "there is no such decision of this tenant")
_BUSY = Refused(Code.SERVICE_OVERLOADED, "too many look-ups at once", {"retry_after_ms": 100})


class DecisionRoutes:
    """Looks decisions up. What belongs to another tenant is not found."""

    def __init__(self, get_decision: GetDecision) -> None:
        self._get_decision = get_decision
        self._running = 0

    async def by_id(self, asker: Asker, decision_id: str, tenant: str | None) -> Reply:
        """Return a decision by its id. The tenant is the key's if it has only one, else `tenant`."""
        bound = tenant_of(asker, tenant)
        if isinstance(bound, Refused):
            return refused(bound)
        if self._running >= MAX_AT_ONCE:
            return refused(_BUSY)
        self._running += 1
        try:
            query = orjson.dumps({"decision_id": decision_id, "tenant_id": bound})
            body, _ = await self._get_decision(query, {}, f"{GET_DECISION}.{bound}")
        finally:
            self._running -= 1
        reply = reply_of(body)
        return refused(_NOT_FOUND) if reply.status == 401 else reply


def tenant_of(asker: Asker, named: str | None) -> str | Refused:
    """Return the tenant of a look-up: the key's if it has only one, else the named one if the key has it."""
    tenants = asker.tenants
    if named is None and tenants is not None and len(tenants) == 1:
        return next(iter(tenants))
    if not named:
        return Refused(Code.INVALID_REQUEST, "tenant: is missing (add ?tenant=… to the address)")
    return _NOT_FOUND if tenants is not None and named not in tenants else named
