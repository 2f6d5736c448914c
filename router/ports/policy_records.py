"""Stored policy documents: the current ones, and their history."""

from typing import Protocol

from msgspec import Struct

from router.domain.view import NO_HEAD, HeadView
from router.ports.policies import PolicyStore


class Record(Struct, frozen=True):
    """A stored policy. `document` is its canonical JSON, `hash` 16 hex digits, `created_ms` Redis time."""

    policy_id: str
    revision: int
    hash: str
    created_ms: int
    document: bytes


class Records(Struct, frozen=True):
    """All policies of a tenant at one moment, by policy id. `revision` is the tenant's; 0: it never had a policy."""

    revision: int
    stamp: bytes
    records: tuple[Record, ...]
    head: HeadView = NO_HEAD

    def find(self, policy_id: str) -> Record | None:
        """The policy with that id."""
        return next((r for r in self.records if r.policy_id == policy_id), None)


class Past(Struct, frozen=True):
    """The content of a policy from one write to the next. `document` None: it was deleted.

    `by` None: a version without history wrote it. `restores`: the revision that this one rolled back to.
    """

    revision: int
    hash: str | None
    written_ms: int
    by: str | None
    restores: int | None
    document: bytes | None

    @property
    def act(self) -> str:
        """The act, in the audit's words."""
        if self.document is None:
            return "deleted"
        return "applied" if self.restores is None else "rolled_back"


class PolicyRecords(PolicyStore, Protocol):
    """The policy store, with documents."""

    async def records(self, tenant_id: str) -> Records:
        """All stored documents of a tenant at one moment.

        :raises StoreError: Redis did not answer.
        """

    async def history(self, tenant_id: str, policy_id: str) -> tuple[Past, ...]:
        """The history of a policy, newest first, as far back as the store keeps it. The first entry is the current one.

        :raises StoreError: Redis did not answer.
        """


class Quotas(Struct, frozen=True):
    """Bounds for all policies of a tenant together. `providers`: distinct names; `rules`: fallbacks and limits."""

    policies: int = 256
    providers: int = 512
    rules: int = 2048
