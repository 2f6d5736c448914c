"""A fleet whose Redis does not answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.fleet.harness import PLAIN, Document, Fleet

QUICK = {"ROUTER_STORE_DEADLINE": "50ms"}


@asynccontextmanager
async def frozen(fleet: Fleet) -> AsyncIterator[None]:
    """Redis neither answers nor refuses meanwhile."""
    fleet.valkey.freeze()
    try:
        yield
    finally:
        fleet.valkey.thaw()


def limited(on_store_error: str) -> Document:
    """A policy that says what counts while the store is away."""
    limit = {"id": "all", "scope": "tenant", "resource": "requests", "limit": 100_000, "window": "60s"}
    return PLAIN | {"limits": [limit | {"on_store_error": on_store_error}]}


POLICIES = {
    "strict": {"default": limited("deny")},
    "lenient": {"default": limited("allow")},
    "plain": {"default": PLAIN},
}
