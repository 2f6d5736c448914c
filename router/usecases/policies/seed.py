"""An empty store is seeded from a mounted folder: at boot, and when a running pod finds that the store lost its data.

The seed is complete when it is marked so in the store, after its last write. A pod that dies halfway leaves no mark,
and the next look of any pod starts over; several at once do no harm, because each policy is written only where it is
absent. A policy that was deleted on purpose does not come back: the mark is there.

`ROUTER_POLICY_SOURCE=files`: besides, whatever differs from a file is overwritten at boot and when that file changes; a
policy without a file stays. `redis`: files count only for an empty store.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum

from router.domain.policy.document import content_hash
from router.errors import InvalidInput, Problem, QuotaExceeded, RevisionConflict, StoreError
from router.ports.policies import Announcer
from router.ports.policy_records import PolicyRecords, Quotas, Records
from router.ports.seeding import BadFile, Meta, SeedHooks, SeedReport, SeedStore
from router.usecases.policies.folder import FolderContents, PolicyFile
from router.usecases.policies.publish import DEFAULT_QUOTAS
from router.usecases.policies.quota import Usage
from router.wire.policies import decode, encode

log = logging.getLogger("router.seed")


class Source(StrEnum):
    """Who wins after the seed."""

    REDIS = "redis"
    FILES = "files"


class Seeder:
    """Writes the files of a folder into the store."""

    def __init__(
        self,
        store: PolicyRecords,
        read: Callable[[], FolderContents],
        announcer: Announcer,
        quotas: Quotas = DEFAULT_QUOTAS,
    ) -> None:
        self._store = store
        self._read = read
        self._announcer = announcer
        self._quotas = quotas
        self._last: FolderContents | None = None

    async def seed(self) -> SeedReport:
        """Write every policy that is absent. A bad file is reported and does not stop the others.

        :raises StoreError: the store did not answer; what was written stays, and the next call goes on.
        """
        return await self._each(await asyncio.to_thread(self._read), files_win=False)

    async def enforce(self) -> SeedReport | None:
        """Write every policy whose content differs from its file, if any file has changed since the last call.

        :raises StoreError: as `seed`.
        """
        contents = await asyncio.to_thread(self._read)
        if contents == self._last:
            return None
        unchanged = set(self._last.files) if self._last is not None else set()
        fresh = FolderContents(tuple(f for f in contents.files if f not in unchanged), contents.bad)
        report = await self._each(fresh, files_win=True)
        self._last = contents
        return report

    async def _each(self, contents: FolderContents, *, files_win: bool) -> SeedReport:
        written: list[str] = []
        kept: list[str] = []
        bad = list(contents.bad)
        tenants: dict[str, list[PolicyFile]] = {}
        for file in contents.files:
            tenants.setdefault(file.tenant_id, []).append(file)
        for tenant_id, files in tenants.items():
            found = await self._store.records(tenant_id)
            usage = Usage(found.records)
            for file in files:
                try:
                    revision = await self._write(file, found, usage, files_win=files_win)
                except InvalidInput as refused:
                    bad.append(BadFile(file.name, tuple(refused.problems)))
                    continue
                except QuotaExceeded as refused:
                    bad.append(BadFile(file.name, (Problem("", str(refused)),)))
                    continue
                if revision is None:
                    kept.append(file.name)
                    continue
                written.append(file.name)
                self._announcer.policy_changed(tenant_id, revision)
        return SeedReport(tuple(written), tuple(kept), tuple(bad))

    async def _write(self, file: PolicyFile, found: Records, usage: Usage, *, files_win: bool) -> int | None:
        """The new revision, or None when the file is not to be written."""
        canonical = decode(file.data).canonical
        document = encode(canonical)
        digest = content_hash(document).hex()
        old = found.find(file.policy_id)
        if old is not None and (not files_win or old.hash == digest):
            return None
        usage.check(file.policy_id, canonical, self._quotas)
        expect: int | None = 0 if old is None else old.revision
        while True:
            try:
                revision = await self._store.apply(file.tenant_id, file.policy_id, document, expect_revision=expect)
            except RevisionConflict:
                # Most likely another pod with the same folder.
                now = (await self._store.records(file.tenant_id)).find(file.policy_id)
                if not files_win or (now is not None and now.hash == digest):
                    return None
                expect = None
                continue
            usage.put(file.policy_id, canonical)
            return revision


class StoreGuard:
    """Looks after the seed. `check` at boot; then `run` looks every `interval_s`, and at once after `suspect`.

    `reload(tenant_id)` is called for a suspect tenant once the store is known to be in order, `reload_all` after a
    store was seeded again: the pod's cache has what was there before.
    """

    def __init__(
        self,
        store: SeedStore,
        meta: Meta,
        seeder: Seeder,
        hooks: SeedHooks,
        *,
        source: Source,
        reload: Callable[[str], None],
        reload_all: Callable[[], None],
        interval_s: float = 1.0,
    ) -> None:
        self._store = store
        self._meta = meta
        self._seeder = seeder
        self._hooks = hooks
        self._source = source
        self._reload = reload
        self._reload_all = reload_all
        self._interval_s = interval_s
        self._in_order_before = False
        self._suspects: set[str] = set()
        self._woken = asyncio.Event()

    def suspect(self, tenant_id: str) -> None:
        """A row found no head for a tenant that had policies. Neither waits nor raises."""
        self._suspects.add(tenant_id)
        self._woken.set()

    async def check(self) -> None:
        """See that the store is seeded, and in `files` mode that it says what the files say.

        :raises StoreError: the store did not answer.
        """
        suspects, self._suspects = self._suspects, set()
        try:
            await self._poll()
        except StoreError:
            self._suspects |= suspects
            raise
        for tenant_id in suspects:
            self._reload(tenant_id)

    async def run(self) -> None:
        """Check again and again, until cancelled. A store that is away is reported and waited for."""
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                await self.check()
            except StoreError as fault:
                self._hooks.away(str(fault))

    async def _poll(self) -> None:
        created = await self._meta.ensure()
        if created or not await self._store.seeded():
            report = await self._seeder.seed()
            await self._store.mark_seeded()
            if self._in_order_before:
                self._hooks.reseeded(report)
                self._reload_all()
            else:
                self._hooks.seeded(report)
        self._in_order_before = True
        if self._source is Source.FILES:
            enforced = await self._seeder.enforce()
            if enforced is not None and (enforced.written or enforced.bad):
                self._hooks.seeded(enforced)
