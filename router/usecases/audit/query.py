"""Search of a tenant's audit log: newest first, page by page, with a bound on the work per page.

A cursor is the place where a page ended. New entries are in front of it and trimmed ones behind it, so paging neither
repeats nor skips an entry. A cursor is valid for its tenant and filters; only the time range may differ between pages.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from struct import Struct as Layout
from struct import error

from msgspec import Struct, json
from msgspec.structs import replace

from router.domain.audit.entries import OUTCOMES
from router.domain.audit.records import AuditEntry, AuditQuery, AuditStats
from router.domain.ids import from_text
from router.domain.tasks.task import Action
from router.errors import InvalidInput, Problem
from router.ports.audit import AuditLog

MAX_ENTRIES = 10_000
MAX_READ = 20_000
BATCH = 256
STATS_SAMPLE = 10_000
_CURSOR = Layout(">BQQ4s")
_VERSION = 1


class AuditPage(Struct, frozen=True):
    """Entries, newest first. `cursor` None: no more entries. `read`: entries that were read for this page.

    A page with a cursor but fewer entries than the limit has reached the bound on work; the next page continues there.
    """

    entries: list[AuditEntry]
    cursor: str | None
    read: int


class QueryAudit:
    """Answers queries; a page reads at most `max_read` entries, `batch` at a time."""

    def __init__(self, log: AuditLog, *, max_read: int = MAX_READ, batch: int = BATCH) -> None:
        self._log = log
        self._max_read = max_read
        self._batch = batch

    async def page(self, query: AuditQuery, *, cursor: str | None = None, limit: int = 100) -> AuditPage:
        """The next entries, at most `limit`.

        :raises InvalidInput: the cursor belongs to another query, the time range is empty, a filter cannot match, or
            `limit` is not 1 to 10,000.
        :raises StoreError: Redis did not answer.
        """
        before = checked(query, cursor, limit)
        entries: list[AuditEntry] = []
        read = 0
        while read < self._max_read:
            maximum = min(self._batch, self._max_read - read)
            batch = await self._log.search(query, before=before, maximum=maximum)
            read += batch.read
            entries += batch.found
            if len(entries) > limit:
                entries = entries[:limit]
                before = entries[-1].id
                break
            if batch.read < maximum or batch.last is None:
                return AuditPage(entries, None, read)
            before = batch.last
            if len(entries) == limit:
                break
        return AuditPage(entries, None if before is None else _cursor(query, before), read)

    async def stats(self, tenant_id: str) -> AuditStats:
        """Statistics of the log, from its newest `STATS_SAMPLE` entries.

        :raises StoreError: Redis did not answer.
        """
        return await self._log.stats(tenant_id, sample=STATS_SAMPLE)


def checked(query: AuditQuery, cursor: str | None, limit: int) -> str | None:
    """Check a query; return the place where its last page ended.

    A filter that no entry can match is an error, so that a typing mistake does not look like an empty log.

    :raises InvalidInput: as `QueryAudit.page`.
    """
    problems = _impossible(query)
    before: str | None = None
    if not 1 <= limit <= MAX_ENTRIES:
        problems.append(
            Problem("limit", message=f"{limit} is not 1 to {MAX_ENTRIES:,}", hint="use the cursor to get the next page")
        )
    if query.since_ms is not None and query.until_ms is not None and query.since_ms >= query.until_ms:
        problems.append(Problem("since", message="is not before until", hint="swap them, or leave one out"))
    if cursor is not None:
        try:
            before = _place(query, cursor)
        except (ValueError, error, binascii.Error):
            hint = "use the cursor of the page before, with the same tenant and filters"
            problems.append(Problem("cursor", message="is not a cursor of this query", hint=hint))
    if problems:
        raise InvalidInput(problems)
    return before


def _impossible(query: AuditQuery) -> list[Problem]:
    problems: list[Problem] = []
    action, outcome, decision = query.action, query.outcome, query.decision_id
    if action is not None and not any(a.label.startswith(action) for a in Action):
        hint = f"one of {', '.join(a.label for a in Action)}, or its beginning"
        problems.append(Problem("action", message=f"{action!r} is not an action or the beginning of one", hint=hint))
    if outcome is not None and outcome not in OUTCOMES:
        problems.append(
            Problem("outcome", message=f"{outcome!r} is not an outcome", hint=f"one of {', '.join(OUTCOMES)}")
        )
    if decision is not None and from_text(decision) is None:
        problems.append(Problem("decision_id", message=f"{decision!r} is not a decision_id", hint="give a UUID"))
    return problems


def _query_hash(query: AuditQuery) -> bytes:
    return blake2b(json.encode(replace(query, since_ms=None, until_ms=None)), digest_size=4).digest()


def _cursor(query: AuditQuery, entry_id: str) -> str:
    ms, _, seq = entry_id.partition("-")
    return urlsafe_b64encode(_CURSOR.pack(_VERSION, int(ms), int(seq), _query_hash(query))).decode().rstrip("=")


def _place(query: AuditQuery, cursor: str) -> str:
    raw = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
    version, ms, seq, query_hash = _CURSOR.unpack(raw)
    if version != _VERSION or query_hash != _query_hash(query):
        raise ValueError("the cursor belongs to another query")
    return f"{ms}-{seq}"
