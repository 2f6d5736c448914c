"""Policies in Redis: one hash per tenant, and the head whose stamp changes with every write.

policy   B format = 1, I revision, 8s hash, d created (Redis ms), then the canonical document
history  B format = 1, I revision, 8s hash, d written, H length, msgpack of `_Why`, then the document; none: a delete
"""

import asyncio
import logging
from secrets import token_bytes
from struct import Struct as Layout

from msgspec import Struct, msgpack

from router.domain.audit.records import ROUTER, Actor
from router.domain.levers import NO_HEAD, TenantHead
from router.domain.policy.document import HASH_BYTES, content_hash
from router.domain.policy.model import StoredPolicy, TenantPolicies
from router.domain.tasks.task import Action
from router.errors import InvalidInput, QuotaExceeded, RevisionConflict, StoreDamaged
from router.ports.policy_records import HistoryEntry, Quotas, Record, Records
from router.store.audit.admin_records import KEEP_MS, Detail, packed_act
from router.store.keys import Keys
from router.store.packing import NO_STAMP, FormatError, head
from router.store.scripts.load import load as load_script
from router.store.servers.hashes import field_pairs
from router.store.servers.nodes import Nodes
from router.store.servers.replicas import Replicas
from router.store.tenants.presence import Presence
from router.wire.policies import decode

log = logging.getLogger(__name__)

FORMAT = 1
DAY_MS = 86_400_000
_HEADER = Layout(f">BI{HASH_BYTES}sd")
_PAST = Layout(f">BI{HASH_BYTES}sdH")
_ANY = -1


class Bounds(Struct, frozen=True):
    """Bounds of a tenant's stored policies: their number, revisions per policy, and how long history outlives a policy.

    `audit_ms`: the minimum time that records of writes are kept.
    """

    policies: int = Quotas().policies
    revisions: int = 20
    deleted_ms: int = 30 * DAY_MS
    audit_ms: int = KEEP_MS


class _Why(Struct, frozen=True, array_like=True):
    """The author of a revision, and the revision that it restores."""

    by: str
    restores: int | None = None


_pack_why = msgpack.Encoder().encode
_why = msgpack.Decoder(_Why).decode
DEFAULT_BOUNDS = Bounds()


def _left_out(tenant_id: str, *, policy_id: str, why: str) -> None:
    log.warning("policy %s of tenant %s is unreadable and left out: %s", policy_id, tenant_id, why)


def _view(tenant_id: str, raw: bytes) -> TenantHead:
    try:
        return head(tenant_id, raw)
    except FormatError as fault:
        raise StoreDamaged(f"{fault} (of tenant {tenant_id})") from fault


class RedisPolicies:
    """`ports.policies.PolicyStore` and `ports.policy_records.PolicyRecords` on Redis.

    A stored policy that this version cannot read (a newer policy language, another format) is logged and left out. The
    tenant's other policies still serve.
    """

    def __init__(
        self, nodes: Nodes, keys: Keys, *, bounds: Bounds = DEFAULT_BOUNDS, replicas: Replicas | None = None
    ) -> None:
        self._replicas = replicas or Replicas(nodes)
        self._nodes = nodes
        self._keys = keys
        self._bounds = bounds
        self._presence = Presence(nodes)
        self._unreadable: dict[str, frozenset[str]] = {}
        kinds = ("head", "policies")
        self._load = load_script("load_policies", keys=kinds, argv=(), returns={0: "loaded"})
        self._apply = load_script(
            "apply_policy",
            keys=(*kinds, "audit", "history"),
            argv=(
                *("policy", "expect", "hash", "random", "max_policies", "document", "action", "features", "keep_ms"),
                *("tenant", "why", "entries"),
            ),
            returns={0: "applied", 1: "conflict", 2: "full", 3: "moved"},
        )
        self._delete = load_script(
            "delete_policy",
            keys=(*kinds, "audit", "history"),
            argv=(
                *("policy", "expect", "random", "action", "features", "keep_ms"),
                *("why", "entries", "history_ms"),
            ),
            returns={0: "deleted", 1: "conflict"},
        )

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """See `ports.policies.PolicyStore.load`.

        Yields to the event loop between policies, so a tenant with many policies does not block it. An unknown tenant
        costs a share of one round trip, because any caller can invent names.
        """
        if not await self._presence.has(self._keys.tenant(tenant_id).policies):
            self._unreadable.pop(tenant_id, None)
            return None
        stored = await self.records(tenant_id)
        self._unreadable.pop(tenant_id, None)
        if not stored.records:
            return None
        policies: dict[str, StoredPolicy] = {}
        for record in stored.records:
            try:
                policy = decode(record.document).policy
            except InvalidInput as unreadable:
                _left_out(tenant_id, policy_id=record.policy_id, why=str(unreadable))
                continue
            policies[record.policy_id] = StoredPolicy(record.policy_id, record.revision, record.hash, policy)
            await asyncio.sleep(0)
        if len(policies) < len(stored.records):
            self._unreadable[tenant_id] = frozenset(r.policy_id for r in stored.records) - policies.keys()
        return TenantPolicies(
            tenant_id=tenant_id, revision=stored.revision, stamp=stored.stamp, policies=policies, head=stored.head
        )

    def unreadable(self, tenant_id: str) -> frozenset[str]:
        """The policies that the tenant's last load left out, because this version cannot read them."""
        return self._unreadable.get(tenant_id, frozenset())

    async def records(self, tenant_id: str) -> Records:
        """All stored documents of a tenant at one moment, by policy id.

        :raises StoreError: Redis did not answer.
        """
        _, raw, *fields = await self._nodes.run(self._load, self._tenant_keys(tenant_id), ())
        view = _view(tenant_id, raw) if raw else NO_HEAD
        records: list[Record] = []
        for name, packed in field_pairs(fields):
            policy_id = name.decode()
            if packed[0] != FORMAT:
                _left_out(tenant_id, policy_id=policy_id, why=f"stored in format {packed[0]}")
                continue
            _, revision, digest, created_ms = _HEADER.unpack_from(packed)
            document = packed[_HEADER.size :]
            records.append(
                Record(
                    policy_id=policy_id,
                    revision=revision,
                    hash=digest.hex(),
                    created_ms=int(created_ms),
                    document=document,
                )
            )
        records.sort(key=lambda r: r.policy_id)
        return Records(view.revision, raw[1:9] or NO_STAMP, tuple(records), view)

    async def history(self, tenant_id: str, *, policy_id: str) -> tuple[HistoryEntry, ...]:
        """See `ports.policy_records.PolicyRecords.history`. An entry of another format is logged and left out."""
        packed = await self._nodes.call("LRANGE", self._keys.tenant(tenant_id).history(policy_id), 0, -1)
        entries = []
        for raw in packed:
            if raw[0] == FORMAT:
                entries.append(_past(raw))
            else:
                _left_out(tenant_id, policy_id=policy_id, why=f"history in format {raw[0]}")
        return tuple(entries)

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
        """See `ports.policies.PolicyStore.apply`."""
        digest = content_hash(document)
        action = Action.POLICY_APPLIED if restores is None else Action.POLICY_ROLLED_BACK
        details: dict[str, Detail] = {"policy_hash": digest.hex()}
        if restores is not None:
            details["restored_revision"] = restores
        args = (
            policy_id,
            _ANY if expect_revision is None else expect_revision,
            digest,
            token_bytes(4),
            self._bounds.policies,
            document,
            action.value,
            packed_act(by, resource_type="policy", resource_id=policy_id, **details),
            self._bounds.audit_ms,
            _ANY if expect_tenant is None else expect_tenant,
            _pack_why(_Why(by.principal, restores)),
            self._bounds.revisions,
        )
        code, number = await self._replicas.run(self._apply, self._written_keys(tenant_id, policy_id=policy_id), args)
        match self._apply.returns[code]:
            case "applied":
                return int(number)
            case "full":
                raise QuotaExceeded("policies", int(number) + 1, maximum=self._bounds.policies)
            case "conflict" | "moved":
                raise RevisionConflict(number)
            case name:
                raise AssertionError(f"apply_policy returned {name}")

    async def delete(self, tenant_id: str, *, policy_id: str, expect_revision: int | None, by: Actor = ROUTER) -> int:
        """See `ports.policies.PolicyStore.delete`."""
        args = (
            policy_id,
            _ANY if expect_revision is None else expect_revision,
            token_bytes(4),
            Action.POLICY_DELETED.value,
            packed_act(by, resource_type="policy", resource_id=policy_id),
            self._bounds.audit_ms,
            _pack_why(_Why(by.principal)),
            self._bounds.revisions,
            self._bounds.deleted_ms,
        )
        code, number = await self._replicas.run(self._delete, self._written_keys(tenant_id, policy_id=policy_id), args)
        if self._delete.returns[code] == "conflict":
            raise RevisionConflict(number)
        return int(number)

    async def seeded(self) -> bool:
        """Whether `mark_seeded` was called since the store was last empty.

        :raises StoreError: Redis did not answer.
        """
        return bool(await self._nodes.call("HEXISTS", self._keys.meta, "seeded"))

    async def mark_seeded(self) -> None:
        """Mark the seed as complete. Call it only when `meta` exists: an absent one means an empty store.

        :raises StoreError: Redis did not answer.
        """
        await self._nodes.call("HSET", self._keys.meta, "seeded", 1)

    def _tenant_keys(self, tenant_id: str) -> tuple[bytes, bytes]:
        keys = self._keys.tenant(tenant_id)
        return keys.head, keys.policies

    def _written_keys(self, tenant_id: str, *, policy_id: str) -> tuple[bytes, bytes, bytes, bytes]:
        keys = self._keys.tenant(tenant_id)
        return keys.head, keys.policies, keys.audit, keys.history(policy_id)


def _past(raw: bytes) -> HistoryEntry:
    _, revision, digest, written_ms, length = _PAST.unpack_from(raw)
    document = raw[_PAST.size + length :] or None
    why = _why(raw[_PAST.size : _PAST.size + length]) if length else None
    return HistoryEntry(
        revision=revision,
        hash=None if document is None else digest.hex(),
        written_ms=int(written_ms),
        by=None if why is None else why.by,
        restores=None if why is None else why.restores,
        document=document,
    )
