"""Policies are written by compare-and-set and announced; a pod that misses it notices by the stamp of its next row."""

import re
from typing import Final

import orjson
from msgspec import Struct

from router.domain.audit import ROUTER, Actor
from router.domain.policy.diff import Change, diff
from router.domain.policy.document import Parsed, content_hash
from router.domain.policy.model import DEFAULT_POLICY_ID, Policy
from router.domain.policy.shares import ShareChange, share_changes
from router.errors import InvalidInput, Problem, RevisionConflict
from router.ports.policies import Announcer
from router.ports.policy_records import Past, PolicyRecords, Quotas, Record, Records
from router.usecases.policies.quota import Usage
from router.wire.policies import decode, encode

_ID = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_TRIES: Final = 20
DEFAULT_QUOTAS: Final = Quotas()


class Published(Struct, frozen=True):
    """What an act came to, or would come to (`dry_run`).

    `revision` is the tenant's, after what was written. `changes` say what is different in the policy, `shares` to whom
    its requests go first, `affects` which requests they are. `changed` False: it says the same as what is there, and
    nothing was written.
    """

    tenant_id: str
    policy_id: str
    revision: int
    hash: str | None
    changed: bool
    dry_run: bool
    changes: tuple[Change, ...]
    warnings: tuple[Problem, ...] = ()
    shares: tuple[ShareChange, ...] = ()

    @property
    def affects(self) -> str:
        """Whose requests are decided by this policy."""
        named = f"with policy_id {self.policy_id}"
        which = f"without policy_id, or {named}" if self.policy_id == DEFAULT_POLICY_ID else named
        return f"requests of {self.tenant_id} {which}"


class _Write(Struct, frozen=True):
    """What is to be written."""

    tenant_id: str
    policy_id: str
    parsed: Parsed
    expect_revision: int | None
    dry_run: bool
    restores: int | None = None


class PolicyPublisher:
    """Applies, deletes, rolls back, lists and shows policies, in the name of `by`."""

    def __init__(
        self, store: PolicyRecords, announcer: Announcer, by: Actor = ROUTER, quotas: Quotas = DEFAULT_QUOTAS
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._by = by
        self._quotas = quotas

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
        :raises QuotaExceeded: the tenant would have too much.
        :raises RevisionConflict: the expectation does not hold.
        :raises StoreError: the store did not answer.
        """
        parsed = decode(document)
        check_ids(tenant_id, policy_id)
        return await self._write(_Write(tenant_id, policy_id, parsed, expect_revision, dry_run))

    async def rollback(
        self,
        tenant_id: str,
        policy_id: str,
        revision: int,
        *,
        expect_revision: int | None = None,
        dry_run: bool = False,
    ) -> Published:
        """Write what a policy was at a revision, as a new revision; also when it was deleted since.

        :raises InvalidInput: ids are wrong, the history does not have that revision, or it is a delete.
        :raises QuotaExceeded: as `apply`.
        :raises RevisionConflict: as `apply`.
        :raises StoreError: the store did not answer.
        """
        past = await self.history(tenant_id, policy_id)
        found = next((p for p in past if p.revision == revision), None)
        if found is None or found.document is None:
            kept = ", ".join(str(p.revision) for p in past if p.document is not None) or "none"
            why = "is not in the history" if found is None else "is where the policy was deleted"
            raise InvalidInput([Problem("revision", f"{revision} {why}", f"there are: {kept}")])
        return await self._write(
            _Write(tenant_id, policy_id, decode(found.document), expect_revision, dry_run, restores=revision)
        )

    async def history(self, tenant_id: str, policy_id: str) -> tuple[Past, ...]:
        """What a policy was, newest first; empty: nothing is known of it.

        :raises InvalidInput: the ids are wrong.
        :raises StoreError: the store did not answer.
        """
        check_ids(tenant_id, policy_id)
        return await self._store.history(tenant_id, policy_id)

    async def _write(self, w: "_Write") -> Published:
        document = encode(w.parsed.canonical)
        digest = content_hash(document).hex()
        tries = _TRIES
        while True:
            found = await self._store.records(w.tenant_id)
            old = found.find(w.policy_id)
            revision = old.revision if old else 0
            if w.expect_revision is not None and w.expect_revision != revision:
                raise RevisionConflict(revision)
            changes = diff(orjson.loads(old.document) if old else None, w.parsed.canonical)
            changed = old is None or old.hash != digest
            if changed:
                Usage(found.records).check(w.policy_id, w.parsed.canonical, self._quotas)
            tenant_revision = found.revision
            if changed and not w.dry_run:
                try:
                    # Against the revisions that changes and quotas were told of, so that they are true.
                    tenant_revision = await self._store.apply(
                        w.tenant_id,
                        w.policy_id,
                        document,
                        expect_revision=revision,
                        expect_tenant=found.revision,
                        by=self._by,
                        restores=w.restores,
                    )
                except RevisionConflict:
                    tries -= 1
                    if not tries:
                        raise
                    continue
                self._announcer.policy_changed(w.tenant_id, tenant_revision)
            return Published(
                w.tenant_id,
                w.policy_id,
                tenant_revision,
                digest,
                changed,
                w.dry_run,
                changes,
                tuple(w.parsed.warnings),
                share_changes(_readable(old), w.parsed.policy),
            )

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
        shares = share_changes(_readable(old), None)
        return Published(tenant_id, policy_id, revision, None, True, dry_run, changes, shares=shares)

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


def _readable(record: Record | None) -> Policy | None:
    """The policy of a record; None when there is none, or when a newer version wrote it."""
    try:
        return None if record is None else decode(record.document).policy
    except InvalidInput:
        return None


def check_ids(tenant_id: str, policy_id: str = "default") -> None:
    """Refuse names that no request could carry.

    :raises InvalidInput: with both problems.
    """
    hint = "1 to 255 of A-Z a-z 0-9 _ . -"
    names = (("tenant_id", tenant_id), ("policy_id", policy_id))
    problems = [Problem(path, f"{name!r} is not a valid id", hint) for path, name in names if not _ID.fullmatch(name)]
    if problems:
        raise InvalidInput(problems)
