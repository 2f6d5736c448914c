"""The audit logs: what is read, cut and added."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from router.domain.audit import Actor, AuditEntry, AuditQuery, AuditRead, AuditStats, UnknownTenant
from router.domain.task import Action


class AuditLog(Protocol):
    """A tenant's audit log. Every read names its tenant and is bounded, so that no decision waits behind it."""

    async def search(self, query: AuditQuery, *, before: str | None = None, maximum: int = 512) -> AuditRead:
        """Read up to `maximum` (at most 512) entries of the query's time range, newest first, older than `before`.

        `before` need not exist (any more). What does not match is read, but not returned.

        :raises StoreError: Redis did not answer.
        """

    async def after(self, tenant_id: str, last: str, *, maximum: int = 100) -> list[AuditEntry]:
        """Up to `maximum` entries (at most 512), oldest first, newer than the entry `last` ("0-0": from the beginning).

        :raises StoreError: Redis did not answer.
        """

    async def one(self, tenant_id: str, entry_id: str) -> AuditEntry | None:
        """The entry of this id.

        :raises InvalidInput: not an id of a log.
        :raises StoreError: Redis did not answer.
        """

    async def stats(self, tenant_id: str, *, sample: int) -> AuditStats:
        """The log at a glance; actions are counted over the newest `sample` entries, in bounded reads.

        :raises StoreError: Redis did not answer.
        """


class UnknownTenantLog(Protocol):
    """The fleet's one bounded log of refusals that no tenant's log can hold."""

    async def record(self, records: Sequence[UnknownTenant]) -> None:
        """Append; the oldest beyond the bound go.

        :raises StoreError: Redis did not answer.
        """

    async def newest(self, maximum: int) -> list[AuditEntry]:
        """Up to `maximum`, newest first.

        :raises StoreError: Redis did not answer.
        """


class Trimmed(Struct, frozen=True):
    """What became of a log since the last look at it.

    `cut_inside_age` entries went by the bound on length although they were younger than the retention; `at_bound`: more
    will. `unread` entries wait for the export, `lost` ones were cut before it read them. `oldest_ms` 0: an empty log.
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
    """Keeps audit logs within their age. Every method raises `StoreError` when Redis did not do it."""

    async def notice(self, tenant_ids: Sequence[str]) -> None:
        """These tenants have logs: they will be due."""

    async def claim(self, lease_ms: int, maximum: int) -> list[str]:
        """Take tenants whose log is to be looked at; other pods do not get them for `lease_ms`."""

    async def trim(self, tenant_id: str, *, look_ms: int, full_ms: int, keep_unread: bool) -> Trimmed | None:
        """Cut what is older than the retention, with a bound on the work; the rest is due at once.

        The tenant is due again after `look_ms` (at its bound: `full_ms`) at the latest. `keep_unread`: what the export
        has not read stays. None: there is no log (any more).
        """

    async def exported(self, tenant_id: str) -> str:
        """The last entry that the export has stored outside; "0-0": none."""

    async def mark_exported(self, tenant_id: str, expected: str, entry_id: str, count: int) -> bool:
        """Move that mark on from `expected`, over `count` entries. False: somebody else has moved it."""

    async def due_now(self, tenant_id: str) -> None:
        """Look at this tenant again at once."""


class ActLog(Protocol):
    """The fleet's one bounded audit log of what belongs to no tenant."""

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
    """A place outside."""

    async def store(self, tenant_id: str, entries: Sequence[AuditEntry]) -> None:
        """Keep them; returns when they are safe.

        :raises ExportFailed: they are not.
        """
