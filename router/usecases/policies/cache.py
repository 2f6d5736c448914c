"""The pod's compiled policies: a bounded cache in front of the store.

**Why a cache.** Every decision needs a compiled policy, and reading it from Redis would add a round trip to each. So a
pod decides by its cached copy, and the store shows when the copy is old: every decide row returns the tenant's
current stamp (`observe`). Announcements over NATS only make that faster, so a lost one costs time, never correctness.

    LOADING ──load──▶ cached ──TTL, another stamp, an announcement──▶ cached, reload in the background ──▶ cached
       │                 └── least recently used, and the bound is reached ──▶ LOADING
       └── has no policies ──▶ absent (None) for `absent_ttl_s`, until it is announced ──▶ LOADING

**Stale beats unavailable.** A cached tenant is always answered from memory. A successful reload replaces its entry; a
failed one leaves it, even after its TTL. A policy written in a newer language than this pod reads keeps its last
readable content. Only for a policy id that the entry does not have, the store is asked again (`may_be_outdated`).

**Loads.** At most one load per tenant is in flight; callers share it. A change during a load starts another one. Loads
that requests ask for are bounded and wait in order (`usecases.policies.loads`).

**The bound** counts the policies and the plan caches (`domain.policy.plan_cache.PlanCache`), which grow in use. Above
it, plan caches are emptied first, since they refill by themselves; then tenants are evicted. Eviction is second chance:
a hit sets a mark, because reordering the entries at every hit costs more than the hit itself.

Nothing here survives a crash: a new pod starts with an empty cache.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from router.domain.policy.model import TenantPolicies
from router.ports.policies import LOADING, CacheHooks, Cause, Loader, Loading
from router.usecases.policies.cache_settings import DEFAULT_SETTINGS, CacheSettings
from router.usecases.policies.loads import LoadFuture, Loads
from router.usecases.policies.revision_skew import RevisionSkew
from router.usecases.policies.size import size_of

MAX_ABSENT: Final = 20_000
REFRESHES_AT_ONCE: Final = 16
# A stamp opens with the tenant's revision, which grows with every write.
REVISION_BYTES: Final = 4


class _Entry:
    __slots__ = (
        "doubtful_at",
        "newest_stamp",
        "no_reload_until",
        "plan_caches",
        "policies",
        "recently_used",
        "refresh_at",
        "size",
        "stamp",
    )

    def __init__(self, policies: TenantPolicies, refresh_at: float, doubtful_at: float) -> None:
        self.policies = policies
        self.stamp = policies.stamp
        self.size = size_of(policies)
        self.plan_caches = tuple(p.policy.plan_cache for p in policies.policies.values())
        self.refresh_at = refresh_at
        self.doubtful_at = doubtful_at
        self.no_reload_until = 0.0
        # The newest stamp, other than the entry's own, that a row has returned.
        self.newest_stamp = b""
        # Set by a hit: a tenant that was loaded but never used again is evicted first.
        self.recently_used = False


class PolicyCache:
    """Policies by tenant. For one event loop; `get`, `observe` and `announced` neither wait nor raise.

    `clock` is monotonic, in seconds. `unreadable(tenant)` returns the ids of the policies that the last load could not
    read (`store.policies.RedisPolicies.unreadable`).
    """

    def __init__(
        self,
        store: Loader,
        hooks: CacheHooks,
        settings: CacheSettings = DEFAULT_SETTINGS,
        *,
        clock: Callable[[], float],
        unreadable: Callable[[str], frozenset[str]] = lambda _: frozenset(),
    ) -> None:
        self._store = store
        self._unreadable = unreadable
        self._hooks = hooks
        self._settings = settings
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._loads = Loads(self._load, self._load_done)
        self._reload_again: set[str] = set()
        self._backlog: deque[str] = deque()
        self.skew = RevisionSkew(clock)
        self._size = 0

    def get(self, tenant_id: str) -> TenantPolicies | Loading | None:
        """Return the tenant's policies. None: it has none; LOADING: await `load`."""
        entry = self._entries.get(tenant_id)
        if entry is not None:
            entry.recently_used = True
            return entry.policies
        absent_until = self._absent.get(tenant_id)
        if absent_until is not None:
            if self._clock() < absent_until:
                return None
            del self._absent[tenant_id]
        return LOADING

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """Read the tenant's policies from the store; concurrent callers share one read.

        :raises LoadsFull: too many tenants wait for their policies.
        :raises StoreError: the store did not answer.
        """
        # Shielded: a cancelled caller must not cancel the load for the others.
        return await asyncio.shield(self.begin_load(tenant_id))

    def begin_load(self, tenant_id: str) -> LoadFuture:
        """See `ports.policies.Policies.begin_load`."""
        return self._loads.ask(tenant_id)

    def may_be_outdated(self, tenant_id: str) -> bool:
        """Whether the entry is too old to conclude that the tenant lacks a policy.

        A request for an unknown policy sends no row, so no stamp reveals a change, and a missed announcement would last
        until the TTL. Such a request therefore loads again after `negative_ttl_s`, as for tenants without policies.
        """
        entry = self._entries.get(tenant_id)
        return entry is not None and self._clock() >= entry.doubtful_at

    def observe(self, tenant_id: str, stamp: bytes) -> None:
        """Take the stamp that a decide row of this tenant returned; empty: the store was not reached."""
        entry = self._entries.get(tenant_id)
        if entry is None or not stamp:
            return
        if entry.stamp != stamp:
            self._stamp_differs(tenant_id, entry, stamp)
        elif self.skew.since:
            self.skew.agrees(tenant_id)

    def announced(self, tenant_id: str) -> None:
        """Reload the tenant's changed policies, if this pod uses them."""
        self._absent.pop(tenant_id, None)
        if tenant_id in self._loads:
            # The load in flight may have read the state before the change.
            self._reload_again.add(tenant_id)
        elif tenant_id in self._entries:
            self._loads.start(tenant_id, Cause.ANNOUNCED)

    def announced_all(self) -> None:
        """Reload every cached tenant: the store was seeded again, or announcements may have been missed."""
        self._absent.clear()
        self._reload_again.update(self._loads.running)
        self._backlog = deque(t for t in self._entries if t not in self._loads)
        self._drain_backlog()

    @property
    def loads_waiting(self) -> int:
        """Number of tenants whose requests wait for a load to start."""
        return self._loads.waiting

    @property
    def tenants(self) -> int:
        """Number of cached tenants."""
        return len(self._entries)

    def held(self) -> list[TenantPolicies]:
        """The policies of all cached tenants."""
        return [entry.policies for entry in self._entries.values()]

    @property
    def size_bytes(self) -> int:
        """Estimated memory of the policies and their plan caches."""
        return self._size + self._plan_cache_bytes()

    async def run(self) -> None:
        """Every tick, reload entries past their TTL and enforce the bound; until cancelled."""
        while True:
            await asyncio.sleep(self._settings.tick_s)
            self.refresh_due()
            self.enforce_bound()

    def enforce_bound(self) -> None:
        """Empty all plan caches if they and the policies together exceed the bound."""
        if self.size_bytes > self._settings.max_bytes:
            for entry in self._entries.values():
                for plan_cache in entry.plan_caches:
                    plan_cache.forget()

    def refresh_due(self) -> None:
        """Start to reload entries past their TTL, a few at a time."""
        now = self._clock()
        overdue = [t for t, e in self._entries.items() if e.refresh_at <= now and t not in self._loads]
        for tenant_id in overdue[: max(0, REFRESHES_AT_ONCE - self._loads.refreshes)]:
            self._loads.start(tenant_id, Cause.EXPIRED)

    async def settled(self) -> None:
        """Return when no load is in flight. Only tests call it; a request that needs a load awaits `load`."""
        await self._loads.settled()

    def _stamp_differs(self, tenant_id: str, entry: _Entry, stamp: bytes) -> None:
        if not any(stamp):
            self._hooks.head_missing(tenant_id)
            return
        entry.newest_stamp = max(entry.newest_stamp, stamp)
        if tenant_id in self._loads or self._clock() >= entry.no_reload_until:
            self.skew.behind(tenant_id)
            if tenant_id not in self._loads:
                self._loads.start(tenant_id, Cause.STAMP)

    def _drain_backlog(self) -> None:
        """Reload the backlog a few tenants at a time: loading all at once would delay every answer."""
        while self._backlog and self._loads.refreshes < REFRESHES_AT_ONCE:
            tenant_id = self._backlog.popleft()
            if tenant_id in self._entries and tenant_id not in self._loads:
                self._loads.start(tenant_id, Cause.ANNOUNCED)

    def _plan_cache_bytes(self) -> int:
        return sum(plan_cache.size_bytes for entry in self._entries.values() for plan_cache in entry.plan_caches)

    def _load_done(self, tenant_id: str) -> None:
        if tenant_id in self._reload_again:
            self._reload_again.discard(tenant_id)
            if tenant_id not in self._loads:
                self._loads.start(tenant_id, Cause.ANNOUNCED)
        self._drain_backlog()

    async def _load(self, tenant_id: str, cause: Cause) -> TenantPolicies | None:
        try:
            loaded = await self._store.load(tenant_id)
        except Exception as fault:  # re-raised: whatever it is, the last good policies stay, and the retry waits
            entry = self._entries.get(tenant_id)
            if entry is not None:
                entry.refresh_at = entry.no_reload_until = entry.doubtful_at = self._clock() + self._settings.retry_s
            self._hooks.failed(tenant_id, str(fault) or type(fault).__name__)
            raise
        loaded = self._with_last_readable(loaded)
        self._store_loaded(tenant_id, loaded)
        self._hooks.loaded(cause, loaded)
        return loaded

    def _with_last_readable(self, loaded: TenantPolicies | None) -> TenantPolicies | None:
        """Keep the last content of unreadable policies: during a roll, an older pod continues with it instead of
        refusing.
        """
        previous = None if loaded is None else self._entries.get(loaded.tenant_id)
        if loaded is None or previous is None:
            return loaded
        last_readable = {
            p: previous.policies.policies[p]
            for p in self._unreadable(loaded.tenant_id)
            if p in previous.policies.policies
        }
        return replace(loaded, policies={**loaded.policies, **last_readable}) if last_readable else loaded

    def _store_loaded(self, tenant_id: str, loaded: TenantPolicies | None) -> None:
        now = self._clock()
        previous = self._entries.pop(tenant_id, None)
        self.skew.agrees(tenant_id)
        if previous is not None:
            self._size -= previous.size
        if loaded is None:
            while len(self._absent) >= MAX_ABSENT:
                self._absent.popitem(last=False)
            self._absent[tenant_id] = now + self._settings.absent_ttl_s
            self._hooks.cached(tenant_id, None)
        else:
            self._absent.pop(tenant_id, None)
            entry = _Entry(loaded, now + self._settings.ttl_s, now + self._settings.negative_ttl_s)
            if previous is not None and previous.newest_stamp[:REVISION_BYTES] > loaded.stamp[:REVISION_BYTES]:
                # The load read the state before a change that a row has revealed meanwhile.
                self._reload_again.add(tenant_id)
            elif previous is not None and previous.stamp == loaded.stamp:
                # A row from before a change, or from a lagging replica: do not start a load for each of these.
                entry.no_reload_until = now + self._settings.retry_s
            self._entries[tenant_id] = entry
            self._size += entry.size
            self._hooks.cached(tenant_id, loaded.revision)
            self._evict(tenant_id)

    def _evict(self, newest: str) -> None:
        """Evict down to the bound. The newest entry stays, even if it alone exceeds the bound."""
        while self._size > self._settings.max_bytes and len(self._entries) > 1:
            tenant_id, entry = next(iter(self._entries.items()))
            del self._entries[tenant_id]
            if entry.recently_used or tenant_id == newest:
                entry.recently_used = False
                self._entries[tenant_id] = entry
            else:
                self._size -= entry.size
                self.skew.agrees(tenant_id)
                self._hooks.cached(tenant_id, None)
