"""The store's view of tenants, and of itself."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from router.domain.limit_usage import Counter, LimitUsage
from router.domain.view import BreakerView, HeadView


class Inspector(Protocol):
    """Shared state, for people."""

    async def breakers(self, tenant_id: str | None = None) -> list[BreakerView]:
        """The breakers in a tenant's state; absent ones are closed and clean. None: those of up to 10,000 tenants.

        :raises StoreError: Redis did not answer.
        """

    async def heads(self, tenant_id: str | None = None) -> list[HeadView]:
        """Switch and levers of a tenant, if it ever had a policy. None: those of up to 10,000 tenants.

        :raises StoreError: Redis did not answer.
        """


class KindCensus(Struct, frozen=True):
    """The number of keys of one kind (`store.keys.KEYS`), and their bytes in Redis, estimated from a sample."""

    kind: str
    keys: int
    size_bytes: int


class Census(Struct, frozen=True):
    """What a tenant has in Redis. `open_tasks` by state. `whole` False: there are more keys than one call may read."""

    kinds: list[KindCensus]
    audit_entries: int
    open_tasks: dict[str, int]
    whole: bool


class Purged(Struct, frozen=True):
    """Keys that were removed, or would be, by kind (for epochs: fields).

    `answers_may_remain`: only the audit log can tell that some answers belong to the tenant (another tenant of the
    partition has the same mark, or an older version wrote them), and that log was cut within a day. These answers
    expire within 24 hours.
    """

    kinds: dict[str, int]
    answers_may_remain: bool

    @property
    def total(self) -> int:
        """The sum over all kinds."""
        return sum(self.kinds.values())


class TenantStore(Protocol):
    """Everything that belongs to one tenant. Every method raises `StoreError` when Redis did not execute it; none
    blocks a node for long.
    """

    async def census(self, tenant_id: str) -> Census:
        """Count the tenant's own keys, and its tasks that have not ended."""

    async def end(self, tenant_id: str, *, keep_ms: int) -> int | None:
        """Remove its policies and levers and switch it off for `keep_ms`, in one act. Returns the revision it had.

        None: the tenant is not known any more.
        """

    async def purge(self, tenant_id: str, *, dry_run: bool) -> Purged:
        """Remove everything of the tenant in small steps; `dry_run`: only count. Not atomic: call `end` first.

        The switch that `end` has set stays for its time. Usage that is settled and not published yet stays, too.
        """


class SamplePage(Struct, frozen=True):
    """A sample of the store's keys: counts by kind, bytes of a few of each, and the number of all keys."""

    total: int
    counts: dict[str, int]
    sizes: dict[str, list[int]]


class StoreSample(Protocol):
    """The store's keys, page by page. Every method raises `StoreError` when Redis did not answer."""

    async def lead(self, lease_ms: int) -> bool:
        """Whether this pod is the one that samples, for that time; a renewal in time keeps it."""

    async def page(self) -> SamplePage:
        """The next page of a walk over all keys, which starts over after its end. Does not block a node for long."""


class LimitUsageStore(Protocol):
    """Current use of limits, and state of breakers."""

    async def measure(self, tenants: Sequence[tuple[str, tuple[Counter, ...]]]) -> list[LimitUsage | None]:
        """The current use of these counters and all breakers of tenants, in order; None: something is unreadable.

        It changes nothing and does not block a node for long.

        :raises StoreError: Redis did not answer.
        """
