"""Stored policy documents: the current documents and their history."""

from typing import Protocol

from msgspec import Struct

from router.domain.levers import NO_HEAD, TenantHead
from router.ports.policies import PolicyStore


class Record(Struct, frozen=True):
    """A stored policy. `document`: its canonical JSON; `hash`: 16 hex digits; `created_ms`: Redis time."""

    policy_id: str
    revision: int
    hash: str
    created_ms: int
    document: bytes


class Records(Struct, frozen=True):
    """All policies of a tenant as of one moment, ordered by policy id.

    `revision` is the tenant's; 0: the tenant never had a policy.
    """

    revision: int
    stamp: bytes
    records: tuple[Record, ...]
    head: TenantHead = NO_HEAD

    def find(self, policy_id: str) -> Record | None:
        """Return the policy with this id; None if there is none."""
        return next((r for r in self.records if r.policy_id == policy_id), None)


class HistoryEntry(Struct, frozen=True):
    """The content of a policy from one write until the next. `document` None: the write deleted the policy.

    `written_ms` is Redis time. `by` None: an old version, which stored no history, wrote the policy. `restores`: the
    revision to which this write rolled back.
    """

    revision: int
    hash: str | None
    written_ms: int
    by: str | None
    restores: int | None
    document: bytes | None

    @property
    def act(self) -> str:
        """The act as the audit log names it: applied, rolled_back or deleted."""
        if self.document is None:
            return "deleted"
        return "applied" if self.restores is None else "rolled_back"


class PolicyRecords(PolicyStore, Protocol):
    """The policy store, with its documents."""

    async def records(self, tenant_id: str) -> Records:
        """Return all stored documents of a tenant as of one moment.

        :raises StoreError: Redis did not answer.
        """

    async def history(self, tenant_id: str, *, policy_id: str) -> tuple[HistoryEntry, ...]:
        """Return the history of a policy, newest first, as far back as the store keeps it.

        The first entry is the current content.

        :raises StoreError: Redis did not answer.
        """


class Quotas(Struct, frozen=True):
    """Bounds on all policies of a tenant together. `providers` counts distinct names, `rules` fallbacks and limits."""

    policies: int = 256
    providers: int = 512
    rules: int = 2048
