"""The pod's compiled policies: a bounded cache in front of the store, with the last good ones when the store is away.

Life of a tenant in the cache:

    LOADING ──load──▶ cached ──TTL, another stamp, an announcement──▶ cached, reload in the background ──▶ cached
       │                 └── least recently used, and the bound is reached ──▶ LOADING
       └── has no policies ──▶ None, for `negative_ttl_s` ──▶ LOADING    (has others than the one asked for: `doubtful`)

A cached tenant is answered from memory, always: a reload replaces the entry when it has succeeded, and one that fails
leaves it as it is, also past its TTL; a policy that was applied in a newer language than this pod reads keeps its last
readable content. One load a tenant is in flight. The least recently used is found by second chance
(a mark that a hit sets), because moving entries around at every hit costs more than the hit.

The bound counts what the policies take, and what planning remembers of them (`PlanCache`), which grows while they are
used: when the two together are above it, the plan caches are emptied first, since they fill again by themselves.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from router.domain.policy.model import TenantPolicies
from router.errors import StoreError
from router.ports.policies import LOADING, CacheHooks, Cause, Loader, Loading
from router.usecases.policies.cache_settings import DEFAULT_SETTINGS, CacheSettings
from router.usecases.policies.size import size_of
from router.usecases.policies.skew import Skew

log = logging.getLogger("router.policies")

MAX_ABSENT: Final = 10_000
REFRESHES_AT_ONCE: Final = 16
# A stamp opens with the tenant's revision, which grows with every write.
REVISION_BYTES: Final = 4


class _Entry:
    __slots__ = ("due", "memos", "policies", "quiet_until", "seen", "size", "stamp", "sure_until", "used")

    def __init__(self, policies: TenantPolicies, due: float, sure_until: float) -> None:
        self.policies = policies
        self.stamp = policies.stamp
        self.size = size_of(policies)
        self.memos = tuple(p.policy.memo for p in policies.policies.values())
        self.due = due
        self.sure_until = sure_until
        self.quiet_until = 0.0
        # The newest other stamp that a row has answered.
        self.seen = b""
        # Set by a hit: a tenant that was loaded and never asked for again goes first.
        self.used = False


class PolicyCache:
    """Policies by tenant. For one event loop; `get`, `observe` and `announced` neither wait nor raise.

    `clock` is monotonic, in seconds. `unreadable(tenant)` names the policies that the last load left out
    (`store.policies.RedisPolicies.unreadable`).
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
        self._absent: dict[str, float] = {}
        self._loads: dict[str, asyncio.Task[TenantPolicies | None]] = {}
        self._again: set[str] = set()
        self._backlog: deque[str] = deque()
        self.skew = Skew(clock)
        self._size = 0

    def get(self, tenant_id: str) -> TenantPolicies | Loading | None:
        """The tenant's policies; None: it has none; LOADING: await `load`."""
        entry = self._entries.get(tenant_id)
        if entry is not None:
            entry.used = True
            return entry.policies
        until = self._absent.get(tenant_id)
        if until is not None:
            if self._clock() < until:
                return None
            del self._absent[tenant_id]
        return LOADING

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """Read the tenant's policies from the store; callers at the same time share one read.

        :raises StoreError: the store did not answer.
        """
        # Shielded: a caller that gives up must not take the answer from the others.
        return await asyncio.shield(self._loads.get(tenant_id) or self._start(tenant_id, Cause.ASKED))

    def doubtful(self, tenant_id: str) -> bool:
        """Whether what is cached is too old to say that the tenant has no policy of some name.

        A request for such a one meets no row whose stamp would tell of a change, so a missed announcement would last
        until the TTL. As with tenants that have none, the store is asked again after `negative_ttl_s`.
        """
        entry = self._entries.get(tenant_id)
        return entry is not None and self._clock() >= entry.sure_until

    def observe(self, tenant_id: str, stamp: bytes) -> None:
        """A decide row of this tenant has answered the store's stamp; empty: it was not reached."""
        entry = self._entries.get(tenant_id)
        if entry is None or not stamp:
            return
        if entry.stamp != stamp:
            self._differs(tenant_id, entry, stamp)
        elif self.skew.since:
            self.skew.agrees(tenant_id)

    def announced(self, tenant_id: str) -> None:
        """The tenant's policies have changed: read them again, if this pod uses them."""
        self._absent.pop(tenant_id, None)
        if tenant_id in self._loads:
            # That load may have read what was there before.
            self._again.add(tenant_id)
        elif tenant_id in self._entries:
            self._start(tenant_id, Cause.ANNOUNCED)

    def announced_all(self) -> None:
        """Anything may have changed (the store was empty, or announcements may have been missed)."""
        self._absent.clear()
        self._again.update(self._loads)
        self._backlog = deque(t for t in self._entries if t not in self._loads)
        self._work_off()

    @property
    def tenants(self) -> int:
        """How many tenants are cached."""
        return len(self._entries)

    def held(self) -> list[TenantPolicies]:
        """What is cached now."""
        return [entry.policies for entry in self._entries.values()]

    @property
    def size_bytes(self) -> int:
        """What they take, and what planning remembers of them."""
        return self._size + self._memo_bytes()

    async def run(self) -> None:
        """Refresh what has passed its TTL, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.tick_s)
            self.refresh_due()
            self.weigh()

    def weigh(self) -> None:
        """See that what planning remembered since the last look is within the bound, too."""
        if self.size_bytes > self._settings.max_bytes:
            for entry in self._entries.values():
                for memo in entry.memos:
                    memo.forget()

    def refresh_due(self) -> None:
        """Start to reload what has passed its TTL, a few at a time."""
        now = self._clock()
        due = [t for t, e in self._entries.items() if e.due <= now and t not in self._loads]
        for tenant_id in due[: max(0, REFRESHES_AT_ONCE - len(self._loads))]:
            self._start(tenant_id, Cause.EXPIRED)

    async def settled(self) -> None:
        """Wait for the loads that are in flight."""
        while self._loads:
            await asyncio.wait(self._loads.values())

    def _differs(self, tenant_id: str, entry: _Entry, stamp: bytes) -> None:
        if not any(stamp):
            self._hooks.head_missing(tenant_id)
            return
        entry.seen = max(entry.seen, stamp)
        if tenant_id in self._loads or self._clock() >= entry.quiet_until:
            self.skew.behind(tenant_id)
            if tenant_id not in self._loads:
                self._start(tenant_id, Cause.STAMP)

    def _work_off(self) -> None:
        """Reload what may have changed, a few at a time: a load of all at once would hold up every answer."""
        while self._backlog and len(self._loads) < REFRESHES_AT_ONCE:
            tenant_id = self._backlog.popleft()
            if tenant_id in self._entries and tenant_id not in self._loads:
                self._start(tenant_id, Cause.ANNOUNCED)

    def _memo_bytes(self) -> int:
        return sum(memo.size_bytes for entry in self._entries.values() for memo in entry.memos)

    def _start(self, tenant_id: str, cause: Cause) -> asyncio.Task[TenantPolicies | None]:
        task = asyncio.get_running_loop().create_task(self._load(tenant_id, cause), name=f"policies:{tenant_id}")
        self._loads[tenant_id] = task
        task.add_done_callback(lambda done: self._done(tenant_id, done))
        return task

    def _done(self, tenant_id: str, task: asyncio.Task[TenantPolicies | None]) -> None:
        del self._loads[tenant_id]
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not isinstance(fault, StoreError):
            log.error("policies of tenant %s could not be loaded", tenant_id, exc_info=fault)
        if tenant_id in self._again:
            self._again.discard(tenant_id)
            self._start(tenant_id, Cause.ANNOUNCED)
        self._work_off()

    async def _load(self, tenant_id: str, cause: Cause) -> TenantPolicies | None:
        try:
            found = await self._store.load(tenant_id)
        except Exception as fault:  # not swallowed: whatever it was, the last good ones stay, and the next try waits
            entry = self._entries.get(tenant_id)
            if entry is not None:
                entry.due = entry.quiet_until = entry.sure_until = self._clock() + self._settings.retry_s
            self._hooks.failed(tenant_id, str(fault) or type(fault).__name__)
            raise
        found = self._with_last_readable(found)
        self._keep(tenant_id, found)
        self._hooks.loaded(cause, found)
        return found

    def _with_last_readable(self, found: TenantPolicies | None) -> TenantPolicies | None:
        """During a roll an older pod goes on with what it had, instead of refusing the policy's requests."""
        old = None if found is None else self._entries.get(found.tenant_id)
        if found is None or old is None:
            return found
        kept = {p: old.policies.policies[p] for p in self._unreadable(found.tenant_id) if p in old.policies.policies}
        return replace(found, policies={**found.policies, **kept}) if kept else found

    def _keep(self, tenant_id: str, found: TenantPolicies | None) -> None:
        now = self._clock()
        old = self._entries.pop(tenant_id, None)
        self.skew.agrees(tenant_id)
        if old is not None:
            self._size -= old.size
        if found is None:
            while len(self._absent) >= MAX_ABSENT:
                del self._absent[next(iter(self._absent))]
            self._absent[tenant_id] = now + self._settings.negative_ttl_s
            self._hooks.kept(tenant_id, None)
        else:
            self._absent.pop(tenant_id, None)
            entry = _Entry(found, now + self._settings.ttl_s, now + self._settings.negative_ttl_s)
            if old is not None and old.seen[:REVISION_BYTES] > found.stamp[:REVISION_BYTES]:
                # This load had read before that change, which a row has told of meanwhile.
                self._again.add(tenant_id)
            elif old is not None and old.stamp == found.stamp:
                # Rows that were answered before a change, or by a lagging replica: not a load for each of them.
                entry.quiet_until = now + self._settings.retry_s
            self._entries[tenant_id] = entry
            self._size += entry.size
            self._hooks.kept(tenant_id, found.revision)
            self._evict(tenant_id)

    def _evict(self, newest: str) -> None:
        """Down to the bound; the newest stays, even when it alone is above it."""
        while self._size > self._settings.max_bytes and len(self._entries) > 1:
            tenant_id, entry = next(iter(self._entries.items()))
            del self._entries[tenant_id]
            if entry.used or tenant_id == newest:
                entry.used = False
                self._entries[tenant_id] = entry
            else:
                self._size -= entry.size
                self.skew.agrees(tenant_id)
                self._hooks.kept(tenant_id, None)
