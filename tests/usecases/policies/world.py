"""A cache on a store in memory."""

from router.ports.policies import LOADING
from router.usecases.policies.cache import PolicyCache
from router.usecases.policies.cache_settings import CacheSettings
from tests.usecases.fakes.policies import ONE, HeardCache, MemoryPolicies


class World:
    """A cache on a store in memory, with a clock that stands still unless it is told."""

    def __init__(self, settings: CacheSettings | None = None) -> None:
        self.now = 1000.0
        self.store = MemoryPolicies()
        self.heard = HeardCache()
        self.cache = PolicyCache(self.store, self.heard, settings or CacheSettings(), clock=lambda: self.now)

    async def apply(self, tenant: str = "acme", document: bytes = ONE) -> None:
        """Write the tenant's default policy."""
        await self.store.apply(tenant, policy_id="default", document=document, expect_revision=None)

    async def cached(self, tenant: str = "acme", document: bytes = ONE) -> None:
        """Write and load."""
        await self.apply(tenant, document)
        await self.cache.load(tenant)

    def provider(self, tenant: str = "acme") -> str:
        """The first provider of what is cached."""
        found = self.cache.get(tenant)
        assert found is not None
        assert found is not LOADING
        return found.policies["default"].policy.providers[0].name  # type: ignore[union-attr]
