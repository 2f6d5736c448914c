"""Policies as the store keeps them: what is there now, and what was."""

from typing import Protocol

from msgspec import Struct

from router.domain.view import NO_HEAD, HeadView
from router.ports.policies import PolicyStore


class Record(Struct, frozen=True):
    """A stored policy: `document` is its canonical JSON, `hash` 16 hex digits, `created_ms` the store's time."""

    policy_id: str
    revision: int
    hash: str
    created_ms: int
    document: bytes


class Records(Struct, frozen=True):
    """All of a tenant at one moment, by policy id. `revision` is the tenant's; 0: it never had a policy."""

    revision: int
    stamp: bytes
    records: tuple[Record, ...]
    head: HeadView = NO_HEAD

    def find(self, policy_id: str) -> Record | None:
        """The policy of that id."""
        return next((r for r in self.records if r.policy_id == policy_id), None)


class Past(Struct, frozen=True):
    """What a policy was from one write to the next. `document` None: it was deleted.

    `by` None: written by a version that kept no history. `restores`: the revision that was rolled back to.
    """

    revision: int
    hash: str | None
    written_ms: int
    by: str | None
    restores: int | None
    document: bytes | None

    @property
    def act(self) -> str:
        """What was done, in the audit's words."""
        if self.document is None:
            return "deleted"
        return "applied" if self.restores is None else "rolled_back"


class PolicyRecords(PolicyStore, Protocol):
    """The store of policies, documents included."""

    async def records(self, tenant_id: str) -> Records:
        """All stored documents of a tenant at one moment.

        :raises StoreError: the store did not answer.
        """

    async def history(self, tenant_id: str, policy_id: str) -> tuple[Past, ...]:
        """What a policy was, newest first, as far back as the store keeps it; the first is what is there now.

        :raises StoreError: the store did not answer.
        """


class Quotas(Struct, frozen=True):
    """Bounds for all policies of a tenant together. `providers`: different names; `rules`: fallbacks and limits."""

    policies: int = 256
    providers: int = 512
    rules: int = 2048
