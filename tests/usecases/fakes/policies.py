"""A store of policies in memory, that can be away, slow, or empty; and listeners that write down what they hear."""

import asyncio

from router.domain.audit.records import ROUTER, Actor
from router.domain.policy.document import content_hash
from router.domain.policy.model import StoredPolicy, TenantPolicies
from router.errors import RevisionConflict, StoreUnavailable
from router.ports.policies import Cause
from router.ports.policy_records import HistoryEntry, Record, Records
from router.ports.seeding import SeedReport
from router.wire.policies import decode

ONE = b'{"providers":[{"name":"a","weight":100}],"version":"1.0"}'
TWO = b'{"providers":[{"name":"b","weight":100}],"version":"1.0"}'


class MemoryPolicies:
    """`usecases.policies.seed.SeedStore` (and `Meta`) in memory."""

    def __init__(self) -> None:
        self.tenants: dict[str, dict[str, Record]] = {}
        self.heads: dict[str, bytes] = {}
        self.pasts: dict[tuple[str, str], list[HistoryEntry]] = {}
        self.mark = False
        self.meta = False
        self.away = False
        self.broken: Exception | None = None
        self.loads = 0
        self.writes = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def flush(self) -> None:
        """FLUSHALL."""
        self.tenants.clear()
        self.heads.clear()
        self.mark = self.meta = False

    def stamp(self, tenant_id: str) -> bytes:
        """What a decide row would answer."""
        return self.heads.get(tenant_id, bytes(8))

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """Waits at the gate after it has read."""
        self.loads += 1
        found = await self.records(tenant_id)
        await self.gate.wait()
        if self.broken is not None:
            raise self.broken
        policies = {
            r.policy_id: StoredPolicy(r.policy_id, r.revision, r.hash, decode(r.document).policy) for r in found.records
        }
        return TenantPolicies(tenant_id, found.revision, found.stamp, policies) if policies else None

    async def records(self, tenant_id: str) -> Records:
        """All documents."""
        self._answer()
        stamp = self.stamp(tenant_id)
        records = tuple(self.tenants.get(tenant_id, {}).values())
        return Records(int.from_bytes(stamp[:4]), stamp, records)

    async def apply(
        self,
        tenant_id: str,
        *,
        policy_id: str,
        document: bytes,
        expect_revision: int | None,
        expect_tenant: int | None = None,
        by: Actor = ROUTER,
        restores: int | None = None,
    ) -> int:
        """Compare and set."""
        self._answer()
        policies = self.tenants.setdefault(tenant_id, {})
        current = policies[policy_id].revision if policy_id in policies else 0
        if expect_revision is not None and expect_revision != current:
            raise RevisionConflict(current)
        if expect_tenant is not None and expect_tenant != int.from_bytes(self.stamp(tenant_id)[:4]):
            raise RevisionConflict(current)
        revision = self._written(tenant_id)
        record = Record(policy_id, revision, content_hash(document).hex(), 0, document)
        policies[policy_id] = record
        past = HistoryEntry(revision, record.hash, 0, by.principal, restores, document)
        self.pasts.setdefault((tenant_id, policy_id), []).insert(0, past)
        return revision

    async def delete(self, tenant_id: str, *, policy_id: str, expect_revision: int | None, by: Actor = ROUTER) -> int:
        """Compare and delete."""
        self._answer()
        policies = self.tenants.get(tenant_id, {})
        current = policies[policy_id].revision if policy_id in policies else 0
        if not current or (expect_revision is not None and expect_revision != current):
            raise RevisionConflict(current)
        del policies[policy_id]
        revision = self._written(tenant_id)
        past = HistoryEntry(revision, None, 0, by.principal, None, None)
        self.pasts[tenant_id, policy_id].insert(0, past)
        return revision

    async def history(self, tenant_id: str, *, policy_id: str) -> tuple[HistoryEntry, ...]:
        """All that was written."""
        self._answer()
        return tuple(self.pasts.get((tenant_id, policy_id), ()))

    async def seeded(self) -> bool:
        """The mark."""
        self._answer()
        return self.mark

    async def mark_seeded(self) -> None:
        """Set the mark."""
        self._answer()
        self.mark = True

    async def ensure(self) -> bool:
        """The store's own record."""
        self._answer()
        created, self.meta = not self.meta, True
        return created

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("away")

    def _written(self, tenant_id: str) -> int:
        self.writes += 1
        revision = int.from_bytes(self.heads.get(tenant_id, b"")[:4]) + 1
        self.heads[tenant_id] = revision.to_bytes(4) + self.writes.to_bytes(4)
        return revision


class HeardCache:
    """`CacheHooks` that remember."""

    def __init__(self) -> None:
        self.causes: list[Cause] = []
        self.failures: list[str] = []
        self.revisions: list[tuple[str, int | None]] = []
        self.missing: list[str] = []

    def loaded(self, cause: Cause, found: TenantPolicies | None) -> None:
        """Remember."""
        self.causes.append(cause)

    def failed(self, tenant_id: str, why: str) -> None:
        """Remember."""
        self.failures.append(why)

    def cached(self, tenant_id: str, revision: int | None) -> None:
        """Remember."""
        self.revisions.append((tenant_id, revision))

    def head_missing(self, tenant_id: str) -> None:
        """Remember."""
        self.missing.append(tenant_id)


class HeardSeed:
    """`SeedHooks` and `Announcer` that remember; `told` is set by anything."""

    def __init__(self) -> None:
        self.seeds: list[SeedReport] = []
        self.reseeds: list[SeedReport] = []
        self.outages: list[str] = []
        self.announced: list[tuple[str, int]] = []
        self.told = asyncio.Event()

    def seeded(self, report: SeedReport) -> None:
        """Remember."""
        self.seeds.append(report)
        self.told.set()

    def reseeded(self, report: SeedReport) -> None:
        """Remember."""
        self.reseeds.append(report)
        self.told.set()

    def store_unavailable(self, why: str) -> None:
        """Remember."""
        self.outages.append(why)
        self.told.set()

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """Remember."""
        self.announced.append((tenant_id, revision))
