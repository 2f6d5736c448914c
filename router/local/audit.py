"""The audit entries of one request, for the proof: read from the store, as `router audit` does, not as a caller."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from router.domain.audit.records import AuditQuery
from router.store.audit.log import RedisAudit
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode

ReadAudit = Callable[[str, str], Awaitable[list[str]]]
"""(tenant_id, request_id) → the actions of the audit entries of that request, oldest first."""

_PAGE = 500


@asynccontextmanager
async def audit_reader(redis_url: str) -> AsyncIterator[ReadAudit]:
    """Reads the newest entries of a tenant's log; the local fleet has the default schema and partitions."""
    nodes = SingleNode(redis_url)
    log = RedisAudit(Keys(), nodes)

    async def read(tenant_id: str, request_id: str) -> list[str]:
        newest = await log.search(AuditQuery(tenant_id, request_id=request_id), maximum=_PAGE)
        return [e.action for e in reversed(newest.found)]

    try:
        yield read
    finally:
        await nodes.close()
