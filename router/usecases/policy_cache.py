"""What the policy cache is told, and what it reports of itself."""

from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct

from router.domain.policy.model import TenantPolicies


class Cause(StrEnum):
    """Why policies are loaded: the label of the reload counter."""

    ASKED = "asked"
    EXPIRED = "expired"
    STAMP = "stamp"
    ANNOUNCED = "announced"


class Loader(Protocol):
    """Where the cache has its policies from; see `ports.PolicyStore.load`."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """All policies of a tenant at one moment; None when it has none.

        :raises StoreError: Redis did not answer.
        """


class CacheHooks(Protocol):
    """What the cache reports of itself. Called on the event loop; must be quick and must not raise."""

    def loaded(self, cause: Cause, found: TenantPolicies | None) -> None:
        """A load succeeded."""

    def failed(self, tenant_id: str, why: str) -> None:
        """A load failed; the last good policies are kept, if there are any."""

    def kept(self, tenant_id: str, revision: int | None) -> None:
        """The tenant is cached at this revision; None: it is not cached (any more)."""

    def head_missing(self, tenant_id: str) -> None:
        """The store has no head for a tenant that had policies: it may have lost its data."""


class CacheSettings(Struct, frozen=True):
    """Times in seconds. `max_bytes` bounds the estimated size: about 100 KB for each of 1000 tenants."""

    ttl_s: float = 300.0
    max_bytes: int = 100_000 * 1000
    negative_ttl_s: float = 1.0
    retry_s: float = 1.0
    tick_s: float = 0.25


DEFAULT_SETTINGS: Final = CacheSettings()
