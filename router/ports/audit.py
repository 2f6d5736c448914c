"""Audit logs: reading, appending, retention and export.

Each tenant has one log, bounded in length and in age. Retention cuts old entries. While the export is on, it copies
entries to every `Sink` before they are cut. Its position in the log is stored in Redis, so it survives a crash. The
position moves only after every sink has stored the batch. An entry may therefore reach a sink twice, with the same id.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from router.domain.audit.records import Actor, AuditEntry, AuditQuery, AuditRead, AuditStats, UnknownTenant
from router.domain.tasks.task import Action


class AuditLog(Protocol):
    """Reads the audit log of a tenant. Every read names its tenant and is bounded, so it never delays decisions."""

    async def search(self, query: AuditQuery, *, before: str | None = None, maximum: int = 512) -> AuditRead:
        """Read up to `maximum` (at most 512) entries in the query's time range, newest first, older than `before`.

        The bound counts entries that are read; those that do not match are left out of the result. The entry `before`
        itself may have been cut.

        :raises StoreError: Redis did not answer.
        """

    async def after(self, tenant_id: str, *, last: str, maximum: int = 100) -> list[AuditEntry]:
        """Return up to `maximum` (at most 512) entries newer than the entry `last`, oldest first.

        `last` "0-0" starts at the beginning of the log.

        :raises StoreError: Redis did not answer.
        """

    async def entry(self, tenant_id: str, *, entry_id: str) -> AuditEntry | None:
        """Return the entry with this id; None if the log does not have it.

        :raises InvalidInput: `entry_id` is not the id of a log entry.
        :raises StoreError: Redis did not answer.
        """

    async def stats(self, tenant_id: str, *, sample: int) -> AuditStats:
        """Return the size and the age of the log. Actions are counted over the newest `sample` entries.

        The entries are read in bounded steps.

        :raises StoreError: Redis did not answer.
        """


class UnknownTenantLog(Protocol):
    """The bounded log of refusals that name an unknown tenant; one for the whole fleet.

    Such a refusal belongs to no tenant, so no tenant's log can hold it.
    """

    async def record(self, records: Sequence[UnknownTenant]) -> None:
        """Append entries. Beyond the bound, the oldest entries are dropped.

        :raises StoreError: Redis did not answer.
        """

    async def newest(self, maximum: int) -> list[AuditEntry]:
        """Return up to `maximum` entries, newest first.

        :raises StoreError: Redis did not answer.
        """


class Trimmed(Struct, frozen=True):
    """The result of one retention run on a log.

    - `entries`: entries left. `oldest_ms`: time of the oldest entry in Redis ms; 0: the log is empty.
    - `appended`: entries appended since the previous run. `cut`: entries that this run cut because of their age.
    - `cut_inside_age`: entries that the length bound cut although they were younger than the retention.
    - `at_bound`: the log is at its length bound, so more entries will be cut inside their age.
    - `unread`: entries that the export has not read yet. `lost`: entries that were cut before the export read them.
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
    """Cuts audit logs at their maximum age and stores the position of the export.

    Every method raises `StoreError` when Redis did not execute it.
    """

    async def register(self, tenant_ids: Sequence[str]) -> None:
        """Register tenants that have a log, so that retention visits them."""

    async def claim(self, lease_ms: int, *, maximum: int) -> list[str]:
        """Claim up to `maximum` tenants whose log is due. Other pods do not get these tenants for `lease_ms`."""

    async def trim(self, tenant_id: str, *, check_ms: int, full_ms: int, keep_unread: bool) -> Trimmed | None:
        """Cut entries older than the retention. Work per call is bounded; if entries remain, the tenant is due at once.

        Otherwise the tenant is due again within `check_ms`, or within `full_ms` while its log is at the length bound.
        With `keep_unread`, entries that the export has not read stay. Returns None if the log does not exist any more.
        """

    async def exported(self, tenant_id: str) -> str:
        """Return the export position: the id of the last entry that the sink has stored; "0-0" if there is none."""

    async def mark_exported(self, tenant_id: str, *, expected: str, entry_id: str, count: int) -> bool:
        """Move the export position from `expected` to `entry_id`, over `count` entries.

        Returns False and changes nothing if the position is not `expected`: another pod has moved it.
        """

    async def due_now(self, tenant_id: str) -> None:
        """Make the tenant due at once."""


class ActLog(Protocol):
    """The bounded audit log of admin acts that belong to no tenant; one for the whole fleet."""

    async def record(
        self,
        action: Action,
        by: Actor,
        resource_type: str,
        resource_id: str | None,
        details: Mapping[str, str | int | bool],
    ) -> None:
        """Append a record. `details` holds plain facts and never a secret.

        :raises StoreError: Redis did not answer.
        """


class Sink(Protocol):
    """A place outside Redis where exported entries are stored."""

    async def store(self, tenant_id: str, entries: Sequence[AuditEntry]) -> None:
        """Store the entries. Returns only when they are safely stored.

        :raises ExportFailed: some entries may not be stored.
        """
