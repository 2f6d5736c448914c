"""Policies are written by compare-and-set and announced; a pod that misses it notices by the stamp of its next row."""

import re
from typing import Final, Protocol

import orjson
from msgspec import Struct

from router.domain.audit import ROUTER, Actor
from router.domain.policy_diff import Change, diff
from router.domain.policy_document import content_hash
from router.errors import InvalidInput, Problem, RevisionConflict
from router.ports import PolicyStore
from router.wire.policies import decode, encode

_ID = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_TRIES: Final = 5


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

    def find(self, policy_id: str) -> Record | None:
        """The policy of that id."""
        return next((r for r in self.records if r.policy_id == policy_id), None)


class PolicyRecords(PolicyStore, Protocol):
    """The store of policies, documents included."""

    async def records(self, tenant_id: str) -> Records:
        """All stored documents of a tenant at one moment.

        :raises StoreError: the store did not answer.
        """


class Announcer(Protocol):
    """Tells all pods, this one included."""

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """A hint, at most once. Never raises: the store is written already, and rows tell the pods that missed it."""


class Published(Struct, frozen=True):
    """What an act came to, or would come to (`dry_run`).

    `revision` is the tenant's, after what was written. `changes` say what is different for requests of this tenant
    under this policy. `changed` False: it says the same as what is there, and nothing was written.
    """

    tenant_id: str
    policy_id: str
    revision: int
    hash: str | None
    changed: bool
    dry_run: bool
    changes: tuple[Change, ...]
    warnings: tuple[Problem, ...] = ()


class PolicyPublisher:
    """Applies, deletes, lists and shows policies, in the name of `by`."""

    def __init__(self, store: PolicyRecords, announcer: Announcer, by: Actor = ROUTER) -> None:
        self._store = store
        self._announcer = announcer
        self._by = by

    async def apply(
        self,
        tenant_id: str,
        policy_id: str,
        document: bytes,
        *,
        expect_revision: int | None = None,
        dry_run: bool = False,
    ) -> Published:
        """Check a document, compare it with what is there, write and announce it.

        `expect_revision` as in `ports.PolicyStore.apply`: None: whatever is there, 0: only if absent.

        :raises InvalidInput: ids or document are wrong; with every problem.
        :raises RevisionConflict: the expectation does not hold.
        :raises StoreError: the store did not answer.
        """
        parsed = decode(document)
        check_ids(tenant_id, policy_id)
        written = encode(parsed.canonical)
        digest = content_hash(written).hex()
        tries = _TRIES if expect_revision is None else 1
        while True:
            found = await self._store.records(tenant_id)
            old = found.find(policy_id)
            revision = old.revision if old else 0
            if expect_revision is not None and expect_revision != revision:
                raise RevisionConflict(revision)
            changes = diff(orjson.loads(old.document) if old else None, parsed.canonical)
            changed = old is None or old.hash != digest
            tenant_revision = found.revision
            if changed and not dry_run:
                try:
                    # Against the revision that the changes were told of, so that they are true.
                    tenant_revision = await self._store.apply(
                        tenant_id, policy_id, written, expect_revision=revision, by=self._by
                    )
                except RevisionConflict:
                    tries -= 1
                    if not tries:
                        raise
                    continue
                self._announcer.policy_changed(tenant_id, tenant_revision)
            warnings = tuple(parsed.warnings)
            return Published(tenant_id, policy_id, tenant_revision, digest, changed, dry_run, changes, warnings)

    async def delete(
        self, tenant_id: str, policy_id: str, *, expect_revision: int | None = None, dry_run: bool = False
    ) -> Published:
        """Remove a policy and announce it.

        :raises InvalidInput: the ids are wrong.
        :raises RevisionConflict: the expectation does not hold, or there is no such policy (`current` 0).
        :raises StoreError: the store did not answer.
        """
        check_ids(tenant_id, policy_id)
        found = await self._store.records(tenant_id)
        old = found.find(policy_id)
        if old is None or (expect_revision is not None and expect_revision != old.revision):
            raise RevisionConflict(old.revision if old else 0)
        changes = diff(orjson.loads(old.document), None)
        revision = found.revision
        if not dry_run:
            revision = await self._store.delete(tenant_id, policy_id, expect_revision=old.revision, by=self._by)
            self._announcer.policy_changed(tenant_id, revision)
        return Published(tenant_id, policy_id, revision, None, True, dry_run, changes)

    async def list(self, tenant_id: str) -> Records:
        """All policies of a tenant.

        :raises InvalidInput: the id is wrong.
        :raises StoreError: the store did not answer.
        """
        check_ids(tenant_id)
        return await self._store.records(tenant_id)

    async def show(self, tenant_id: str, policy_id: str) -> Record | None:
        """One policy; None when there is none of that id.

        :raises InvalidInput: the ids are wrong.
        :raises StoreError: the store did not answer.
        """
        check_ids(tenant_id, policy_id)
        return (await self._store.records(tenant_id)).find(policy_id)


def check_ids(tenant_id: str, policy_id: str = "default") -> None:
    """Refuse names that no request could carry.

    :raises InvalidInput: with both problems.
    """
    hint = "1 to 255 of A-Z a-z 0-9 _ . -"
    names = (("tenant_id", tenant_id), ("policy_id", policy_id))
    problems = [Problem(path, f"{name!r} is not a valid id", hint) for path, name in names if not _ID.fullmatch(name)]
    if problems:
        raise InvalidInput(problems)
