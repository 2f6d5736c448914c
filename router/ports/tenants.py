"""Tenants and their keys in the store, and samples of the store itself."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from msgspec import Struct

from router.domain.levers import BreakerView, TenantHead
from router.domain.policy.limit_usage import Counter, LimitUsage


class Inspector(Protocol):
    """Reads shared state for operators."""

    async def breakers(self, tenant_id: str) -> list[BreakerView]:
        """Return the breakers that a tenant's state holds. A breaker without state is closed and has no failures.

        :raises StoreError: Redis did not answer.
        """

    def all_breakers(self, after: str = "") -> AsyncIterator[list[BreakerView]]:
        """Return the breakers of up to 10,000 tenants in pages, from tenant `after` on, in the order of `<tenant>/`.

        Never reads many keys at once, so decisions are not delayed. The list of tenants may be as old as ten times the
        duration of reading it.

        :raises StoreError: Redis did not answer.
        """

    async def heads(self, tenant_id: str | None = None) -> list[TenantHead]:
        """Return the switch and the levers of a tenant; empty if it never had a policy.

        `tenant_id` None: those of up to 10,000 tenants.

        :raises StoreError: Redis did not answer.
        """


class KindCensus(Struct, frozen=True, kw_only=True):
    """Number and size of the keys of one kind (`store.key_kinds.KEYS`). `size_bytes` is estimated from a sample."""

    kind: str
    keys: int
    size_bytes: int


class TenantContents(Struct, frozen=True):
    """What a tenant has in Redis. `open_tasks` counts tasks by state.

    `whole` False: the counts are incomplete, because there are more keys than one call may read.
    """

    kinds: list[KindCensus]
    audit_entries: int
    open_tasks: dict[str, int]
    whole: bool


class Purged(Struct, frozen=True):
    """The number of keys, by kind, that were removed or would be removed (for epochs: fields of a hash).

    `answers_may_remain`: some answers may belong to the tenant, but were left. They carry a mark that another tenant of
    the partition shares, or an older version stored them without one. Only the audit log could show their owner, and
    that log was cut within the last day. Such answers expire within 24 hours.
    """

    kinds: dict[str, int]
    answers_may_remain: bool

    @property
    def total(self) -> int:
        """The number of keys of all kinds."""
        return sum(self.kinds.values())


class TenantStore(Protocol):
    """Everything that belongs to one tenant.

    Every method raises `StoreError` when Redis did not execute it. No method blocks a Redis node for long.
    """

    async def contents(self, tenant_id: str) -> TenantContents:
        """Count the tenant's own keys and its tasks that have not ended."""

    async def end(self, tenant_id: str, *, keep_ms: int) -> int | None:
        """Remove the tenant's policies and levers, and switch the tenant off for `keep_ms`, in one act.

        Returns the revision that the tenant had; None if the tenant is unknown.
        """

    async def purge(self, tenant_id: str, *, dry_run: bool) -> Purged:
        """Remove everything of the tenant in small steps; with `dry_run`, only count. Not atomic: call `end` first.

        Two things stay: the switch that `end` has set, until it expires, and settled usage that is not published yet.
        """


class SamplePage(Struct, frozen=True):
    """One page of the walk over the store's keys.

    - `total`: number of all keys in the store.
    - `counts`: keys of this page, by kind.
    - `sizes`: bytes of a few keys of each kind.
    """

    total: int
    counts: dict[str, int]
    sizes: dict[str, list[int]]


class StoreSample(Protocol):
    """Walks over the store's keys in pages. Every method raises `StoreError` when Redis did not answer."""

    async def lead(self, lease_ms: int) -> bool:
        """Take or renew the lease on sampling. Returns whether this pod holds it, for `lease_ms` from now."""

    async def page(self) -> SamplePage:
        """Return the next page of the walk. After the last page the walk starts again. Never blocks a node for long."""


class LimitUsageStore(Protocol):
    """Measures the current use of limits and the state of breakers."""

    async def measure(self, tenants: Sequence[tuple[str, tuple[Counter, ...]]]) -> list[LimitUsage | None]:
        """Measure the given counters and all breakers of each tenant, in order; None: a tenant's state is unreadable.

        Changes nothing and never blocks a node for long.

        :raises StoreError: Redis did not answer.
        """
