"""The audit logs: reading, cutting and appending."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from router.domain.audit import Actor, AuditEntry, AuditQuery, AuditRead, AuditStats, UnknownTenant
from router.domain.task import Action


class AuditLog(Protocol):
    """A tenant's audit log. Every read names its tenant and is bounded, so no decision waits behind it."""

    async def search(self, query: AuditQuery, *, before: str | None = None, maximum: int = 512) -> AuditRead:
        """Read up to `maximum` (at most 512) entries in the query's time range, newest first, older than `before`.

        `before` need not exist any more. Entries that do not match are read, but not returned.

        :raises StoreError: Redis did not answer.
        """

    async def after(self, tenant_id: str, last: str, *, maximum: int = 100) -> list[AuditEntry]:
        """Up to `maximum` entries (at most 512), oldest first, newer than the entry `last`. "0-0" is the beginning.

        :raises StoreError: Redis did not answer.
        """

    async def one(self, tenant_id: str, entry_id: str) -> AuditEntry | None:
        """The entry with this id.

        :raises InvalidInput: it is not an id of a log.
        :raises StoreError: Redis did not answer.
        """

    async def stats(self, tenant_id: str, *, sample: int) -> AuditStats:
        """Size and age of the log. Actions are counted over the newest `sample` entries, in bounded reads.

        :raises StoreError: Redis did not answer.
        """


class UnknownTenantLog(Protocol):
    """The fleet's one bounded log of refusals whose tenant is unknown, so that no tenant's log can hold them."""

    async def record(self, records: Sequence[UnknownTenant]) -> None:
        """Append entries. Beyond the bound the oldest ones are dropped.

        :raises StoreError: Redis did not answer.
        """

    async def newest(self, maximum: int) -> list[AuditEntry]:
        """Up to `maximum` entries, newest first.

        :raises StoreError: Redis did not answer.
        """


class Trimmed(Struct, frozen=True):
    """The result of one retention run on a log.

    `cut_inside_age` entries were cut by length although they were younger than the retention; `at_bound`: more will be.
    `unread` entries wait for the export; `lost` ones were cut before it read them. `oldest_ms` 0: the log is empty.
    """

    entries: int
    oldest_ms: int
    appended: int
    cut: int
    cut_inside_age: int
    unread: int
    lost: int
    at_bound: bool


class AuditRetention(Protocol):
    """Keeps audit logs within their age. Every method raises `StoreError` when Redis did not execute it."""

    async def notice(self, tenant_ids: Sequence[str]) -> None:
        """Register that these tenants have logs, so that retention visits them."""

    async def claim(self, lease_ms: int, maximum: int) -> list[str]:
        """Claim tenants whose log is due; other pods do not get them for `lease_ms`."""

    async def trim(self, tenant_id: str, *, look_ms: int, full_ms: int, keep_unread: bool) -> Trimmed | None:
        """Cut entries older than the retention, with a bound on the work; a remainder is due at once.

        The tenant is due again after `look_ms` at the latest (at its length bound: `full_ms`). `keep_unread`: entries
        that the export has not read stay. Returns None when there is no log any more.
        """

    async def exported(self, tenant_id: str) -> str:
        """The last entry that the export has stored outside; "0-0": none."""

    async def mark_exported(self, tenant_id: str, expected: str, entry_id: str, count: int) -> bool:
        """Move that mark on from `expected`, over `count` entries. False: another pod has moved it."""

    async def due_now(self, tenant_id: str) -> None:
        """Make this tenant due at once."""


class ActLog(Protocol):
    """The fleet's one bounded audit log of acts that belong to no tenant."""

    async def record(
        self,
        action: Action,
        by: Actor,
        resource_type: str,
        resource_id: str | None,
        details: Mapping[str, str | int | bool],
    ) -> None:
        """Append a record. `details` are plain facts, never a secret.

        :raises StoreError: Redis did not answer.
        """


class Sink(Protocol):
    """A place outside Redis that stores exported entries."""

    async def store(self, tenant_id: str, entries: Sequence[AuditEntry]) -> None:
        """Store the entries; returns when they are safe.

        :raises ExportFailed: they are not stored.
        """
