"""Publish policies: write them by compare-and-set and announce them to the pods.

A pod that misses the announcement notices the change by the stamp of its next decide row.
"""

import re
from typing import Final

import orjson
from msgspec import Struct

from router.domain.audit.records import ROUTER, Actor
from router.domain.policy.diff import Change, diff
from router.domain.policy.document import Parsed, content_hash
from router.domain.policy.model import DEFAULT_POLICY_ID, Policy
from router.domain.policy.shares import ShareChange, share_changes
from router.errors import InvalidInput, Problem, RevisionConflict
from router.ports.policies import Announcer
from router.ports.policy_records import HistoryEntry, PolicyRecords, Quotas, Record, Records
from router.usecases.policies.quota import Usage
from router.wire.policies import decode, encode

_ID = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_MAX_TRIES: Final = 20
DEFAULT_QUOTAS: Final = Quotas()


class Published(Struct, frozen=True):
    """The result of a write, or of what it would be (`dry_run`).

    `revision` is the tenant's revision after the write. `changes` lists the differences in the policy, `shares` the
    changes in how many requests go to each provider first, `affects` the requests that the policy decides. `changed`
    False: the policy already had this content, and nothing was written.
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
        """The requests that this policy decides, in words."""
        named = f"with policy_id {self.policy_id}"
        which = f"without policy_id, or {named}" if self.policy_id == DEFAULT_POLICY_ID else named
        return f"requests of {self.tenant_id} {which}"


class _Write(Struct, frozen=True):
    """A write to be made."""

    tenant_id: str
    policy_id: str
    parsed: Parsed
    expect_revision: int | None
    dry_run: bool
    restores: int | None = None


class PolicyPublisher:
    """Applies, deletes, rolls back, lists and shows policies, on behalf of `by`."""

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
        *,
        policy_id: str,
        document: bytes,
        expect_revision: int | None = None,
        dry_run: bool = False,
    ) -> Published:
        """Check a document, compare it with the stored one, write and announce it.

        `expect_revision` as in `ports.policies.PolicyStore.apply`. None: any revision; 0: only if the policy is absent.

        :raises InvalidInput: ids or document are wrong; with every problem.
        :raises QuotaExceeded: the tenant would exceed a quota.
        :raises RevisionConflict: the expectation does not hold.
        :raises StoreError: the store did not answer.
        """
        parsed = decode(document)
        check_ids(tenant_id, policy_id=policy_id)
        return await self._write(
            _Write(
                tenant_id=tenant_id,
                policy_id=policy_id,
                parsed=parsed,
                expect_revision=expect_revision,
                dry_run=dry_run,
            )
        )

    async def rollback(
        self,
        tenant_id: str,
        *,
        policy_id: str,
        revision: int,
        expect_revision: int | None = None,
        dry_run: bool = False,
    ) -> Published:
        """Write a policy's content at an earlier revision as a new revision, also if the policy was deleted since.

        :raises InvalidInput: ids are wrong, the history lacks the revision, or the policy was deleted by it.
        :raises QuotaExceeded: as `apply`.
        :raises RevisionConflict: as `apply`.
        :raises StoreError: the store did not answer.
        """
        past = await self.history(tenant_id, policy_id=policy_id)
        past_content = next((p for p in past if p.revision == revision), None)
        if past_content is None or past_content.document is None:
            revisions = ", ".join(str(p.revision) for p in past if p.document is not None) or "none"
            problem = "is not in the history" if past_content is None else "is where the policy was deleted"
            raise InvalidInput([Problem("revision", message=f"{revision} {problem}", hint=f"there are: {revisions}")])
        return await self._write(
            _Write(
                tenant_id=tenant_id,
                policy_id=policy_id,
                parsed=decode(past_content.document),
                expect_revision=expect_revision,
                dry_run=dry_run,
                restores=revision,
            )
        )

    async def history(self, tenant_id: str, *, policy_id: str) -> tuple[HistoryEntry, ...]:
        """Return a policy's earlier contents, newest first; empty if there are none.

        :raises InvalidInput: the ids are wrong.
        :raises StoreError: the store did not answer.
        """
        check_ids(tenant_id, policy_id=policy_id)
        return await self._store.history(tenant_id, policy_id=policy_id)

    async def _write(self, w: "_Write") -> Published:
        document = encode(w.parsed.canonical)
        digest = content_hash(document).hex()
        tries_left = _MAX_TRIES
        while True:
            records = await self._store.records(w.tenant_id)
            previous = records.find(w.policy_id)
            revision = previous.revision if previous else 0
            if w.expect_revision is not None and w.expect_revision != revision:
                raise RevisionConflict(revision)
            changes = diff(orjson.loads(previous.document) if previous else None, after=w.parsed.canonical)
            changed = previous is None or previous.hash != digest
            if changed:
                Usage(records.records).check(w.policy_id, w.parsed.canonical, self._quotas)
            tenant_revision = records.revision
            if changed and not w.dry_run:
                try:
                    # Against the revisions that `changes` and the quota check were computed from.
                    tenant_revision = await self._store.apply(
                        w.tenant_id,
                        policy_id=w.policy_id,
                        document=document,
                        expect_revision=revision,
                        expect_tenant=records.revision,
                        by=self._by,
                        restores=w.restores,
                    )
                except RevisionConflict:
                    tries_left -= 1
                    if not tries_left:
                        raise
                    continue
                self._announcer.policy_changed(w.tenant_id, tenant_revision)
            return Published(
                tenant_id=w.tenant_id,
                policy_id=w.policy_id,
                revision=tenant_revision,
                hash=digest,
                changed=changed,
                dry_run=w.dry_run,
                changes=changes,
                warnings=tuple(w.parsed.warnings),
                shares=share_changes(_readable(previous), after=w.parsed.policy),
            )

    async def delete(
        self, tenant_id: str, *, policy_id: str, expect_revision: int | None = None, dry_run: bool = False
    ) -> Published:
        """Delete a policy and announce it.

        :raises InvalidInput: the ids are wrong.
        :raises RevisionConflict: the expectation does not hold, or there is no such policy (`current` 0).
        :raises StoreError: the store did not answer.
        """
        check_ids(tenant_id, policy_id=policy_id)
        records = await self._store.records(tenant_id)
        previous = records.find(policy_id)
        if previous is None or (expect_revision is not None and expect_revision != previous.revision):
            raise RevisionConflict(previous.revision if previous else 0)
        changes = diff(orjson.loads(previous.document), after=None)
        revision = records.revision
        if not dry_run:
            revision = await self._store.delete(
                tenant_id, policy_id=policy_id, expect_revision=previous.revision, by=self._by
            )
            self._announcer.policy_changed(tenant_id, revision)
        shares = share_changes(_readable(previous), after=None)
        return Published(
            tenant_id=tenant_id,
            policy_id=policy_id,
            revision=revision,
            hash=None,
            changed=True,
            dry_run=dry_run,
            changes=changes,
            shares=shares,
        )

    async def list(self, tenant_id: str) -> Records:
        """List all policies of a tenant.

        :raises InvalidInput: the id is wrong.
        :raises StoreError: the store did not answer.
        """
        check_ids(tenant_id)
        return await self._store.records(tenant_id)

    async def show(self, tenant_id: str, *, policy_id: str) -> Record | None:
        """Return one policy, or None if it does not exist.

        :raises InvalidInput: the ids are wrong.
        :raises StoreError: the store did not answer.
        """
        check_ids(tenant_id, policy_id=policy_id)
        return (await self._store.records(tenant_id)).find(policy_id)


def _readable(record: Record | None) -> Policy | None:
    """Return a record's policy; None without a record, or if a newer version wrote it."""
    try:
        return None if record is None else decode(record.document).policy
    except InvalidInput:
        return None


def check_ids(tenant_id: str, *, policy_id: str = "default") -> None:
    """Refuse ids that no request could carry.

    :raises InvalidInput: an id is not valid; with every problem.
    """
    hint = "1 to 255 of A-Z a-z 0-9 _ . -"
    names = (("tenant_id", tenant_id), ("policy_id", policy_id))
    problems = [
        Problem(path, message=f"{name!r} is not a valid id", hint=hint)
        for path, name in names
        if not _ID.fullmatch(name)
    ]
    if problems:
        raise InvalidInput(problems)
