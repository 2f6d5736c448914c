"""Seed an empty store from a mounted folder, at boot and when a running pod finds that the store lost its data.

After its last write the seed puts a mark into the store. A pod that dies halfway leaves no mark, so the next check of
any pod starts over. Several pods may seed at once, because a policy is only written where it is absent. A deleted
policy does not return: the mark stops further seeds.

`ROUTER_POLICY_SOURCE=redis`: files only seed an empty store. `files`: in addition, a policy that differs from its file
is overwritten at boot and when the file changes; a policy without a file stays.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import assert_never

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
    """Which source wins after the seed."""

    REDIS = "redis"
    FILES = "files"


class Seeder:
    """Writes the policy files of a folder into the store."""

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
        """Write every absent policy. A bad file is reported and does not stop the others.

        :raises StoreError: the store did not answer; written policies stay, and the next call continues.
        """
        return await self._write_all(await asyncio.to_thread(self._read), files_win=False)

    async def enforce(self) -> SeedReport | None:
        """Write every policy that differs from its file. None: no file has changed since the last call.

        :raises StoreError: as `seed`.
        """
        contents = await asyncio.to_thread(self._read)
        if contents == self._last:
            return None
        unchanged = set(self._last.files) if self._last is not None else set()
        fresh = FolderContents(tuple(f for f in contents.files if f not in unchanged), contents.bad)
        report = await self._write_all(fresh, files_win=True)
        self._last = contents
        return report

    async def _write_all(self, contents: FolderContents, *, files_win: bool) -> SeedReport:
        written: list[str] = []
        kept: list[str] = []
        bad = list(contents.bad)
        tenants: dict[str, list[PolicyFile]] = {}
        for file in contents.files:
            tenants.setdefault(file.tenant_id, []).append(file)
        for tenant_id, files in tenants.items():
            records = await self._store.records(tenant_id)
            usage = Usage(records.records)
            for file in files:
                try:
                    revision = await self._write(file, records, usage, files_win=files_win)
                except InvalidInput as refused:
                    bad.append(BadFile(file.name, tuple(refused.problems)))
                    continue
                except QuotaExceeded as refused:
                    bad.append(BadFile(file.name, (Problem("", message=str(refused)),)))
                    continue
                if revision is None:
                    kept.append(file.name)
                    continue
                written.append(file.name)
                self._announcer.policy_changed(tenant_id, revision)
        return SeedReport(written=tuple(written), kept=tuple(kept), bad=tuple(bad))

    async def _write(self, file: PolicyFile, records: Records, usage: Usage, *, files_win: bool) -> int | None:
        """Write one file if needed and return the new revision; None: not written."""
        canonical = decode(file.data).canonical
        document = encode(canonical)
        digest = content_hash(document).hex()
        previous = records.find(file.policy_id)
        if previous is not None and (not files_win or previous.hash == digest):
            return None
        usage.check(file.policy_id, canonical, self._quotas)
        expect: int | None = 0 if previous is None else previous.revision
        while True:
            try:
                revision = await self._store.apply(
                    file.tenant_id, policy_id=file.policy_id, document=document, expect_revision=expect
                )
            except RevisionConflict:
                # Most likely another pod wrote the same file.
                current = (await self._store.records(file.tenant_id)).find(file.policy_id)
                if not files_win or (current is not None and current.hash == digest):
                    return None
                expect = None
                continue
            usage.put(file.policy_id, canonical)
            return revision


class SeedKeeper:
    """Keeps the store seeded. Call `check` at boot; then `run` checks every `interval_s` and at once after `suspect`.

    After a check, `reload(tenant_id)` is called for each suspect tenant. `reload_all` is called after a running store
    was seeded again, because the pod's cache holds the policies of the lost store.
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
        self._was_seeded = False
        self._suspects: set[str] = set()
        self._woken = asyncio.Event()

    def suspect(self, tenant_id: str) -> None:
        """Note that a decide row found no head of a tenant that had policies. Neither waits nor raises."""
        self._suspects.add(tenant_id)
        self._woken.set()

    async def check(self) -> None:
        """Ensure that the store is seeded, and in `files` mode that it matches the files.

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
        """Check periodically, until cancelled. An unavailable store is reported, and the check is retried."""
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
                self._hooks.store_unavailable(str(fault))

    async def _poll(self) -> None:
        created = await self._meta.ensure()
        if created or not await self._store.seeded():
            report = await self._seeder.seed()
            await self._store.mark_seeded()
            if self._was_seeded:
                self._hooks.reseeded(report)
                self._reload_all()
            else:
                self._hooks.seeded(report)
        self._was_seeded = True
        match self._source:
            case Source.REDIS:
                pass
            case Source.FILES:
                enforced = await self._seeder.enforce()
                if enforced is not None and (enforced.written or enforced.bad):
                    self._hooks.seeded(enforced)
            case _:
                assert_never(self._source)
