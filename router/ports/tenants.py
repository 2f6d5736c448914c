"""What the store knows of tenants, and of itself."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from router.domain.limit_usage import Counter, LimitUsage
from router.domain.view import BreakerView, HeadView


class Inspector(Protocol):
    """Shared state as people want to see it."""

    async def breakers(self, tenant_id: str | None = None) -> list[BreakerView]:
        """The breakers that a tenant's state holds (others are closed and clean); None: of up to 10,000 tenants.

        :raises StoreError: Redis did not answer.
        """

    async def heads(self, tenant_id: str | None = None) -> list[HeadView]:
        """Switch and levers of a tenant, if it has ever had a policy; None: of up to 10,000 tenants.

        :raises StoreError: Redis did not answer.
        """


class KindCensus(Struct, frozen=True):
    """Keys of one kind (`store.keys.KEYS`), and their bytes in Redis as a sample tells."""

    kind: str
    keys: int
    size_bytes: int


class Census(Struct, frozen=True):
    """What a tenant has in Redis. `open_tasks` by state; `whole` False: there was more than a look may walk over."""

    kinds: list[KindCensus]
    audit_entries: int
    open_tasks: dict[str, int]
    whole: bool


class Purged(Struct, frozen=True):
    """Keys (of epochs: fields) that went, or would go, by kind.

    `answers_may_remain`: there are answers of which only the audit log can tell that they are the tenant's (another
    tenant of the partition has the same mark, or an older version wrote them), and the log was cut within a day; they
    expire within 24 hours.
    """

    kinds: dict[str, int]
    answers_may_remain: bool

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.kinds.values())


class TenantStore(Protocol):
    """All that is one tenant's. Every method raises `StoreError` when Redis did not do it; none holds a node up."""

    async def census(self, tenant_id: str) -> Census:
        """Count the tenant's own keys, and its tasks that have not ended."""

    async def end(self, tenant_id: str, *, keep_ms: int) -> int | None:
        """Take its policies and levers away and switch it off for `keep_ms`, as one act; its revision then.

        None: it is not known (any more).
        """

    async def purge(self, tenant_id: str, *, dry_run: bool) -> Purged:
        """Remove what there is of it, in small steps; `dry_run`: only count. Not atomic: `end` it first.

        The switch that `end` has set stays for its time. Usage that is settled and not published yet stays, too.
        """


class SamplePage(Struct, frozen=True):
    """Some of the store's keys: how many of each kind, bytes of a few of each, and how many keys there are in all."""

    total: int
    counts: dict[str, int]
    sizes: dict[str, list[int]]


class StoreSample(Protocol):
    """The store's keys, a page at a time. Every method raises `StoreError` when Redis did not answer."""

    async def lead(self, lease_ms: int) -> bool:
        """Whether this pod is the one that looks, for so long; asked again in time it stays the one."""

    async def page(self) -> SamplePage:
        """The next page of a walk over all keys, which begins anew at its end. Holds no node up."""


class LimitUsageStore(Protocol):
    """Counters and breakers as they stand."""

    async def measure(self, tenants: Sequence[tuple[str, tuple[Counter, ...]]]) -> list[LimitUsage | None]:
        """How these counters and all breakers of tenants stand, in order; None: something of it cannot be read.

        It changes nothing and holds no node up.

        :raises StoreError: Redis did not answer.
        """
