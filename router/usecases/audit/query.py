"""Find entries of a tenant's audit log: newest first, page by page, with a bound on the work of a page.

A cursor is the place where a page ended. New entries come before it and trims after it, so turning pages neither
repeats nor skips an entry. It belongs to its tenant and filters; only the time range may move between pages.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from struct import Struct as Layout
from struct import error

from msgspec import Struct, json
from msgspec.structs import replace

from router.domain.audit import AuditEntry, AuditQuery, AuditStats
from router.domain.audit_entries import OUTCOMES
from router.domain.ids import from_text
from router.domain.task import Action
from router.errors import InvalidInput, Problem
from router.ports.audit import AuditLog

MAX_ENTRIES = 10_000
MAX_READ = 20_000
BATCH = 256
STATS_SAMPLE = 10_000
_CURSOR = Layout(">BQQ4s")
_VERSION = 1


class AuditPage(Struct, frozen=True):
    """Entries, newest first. `cursor` None: that was all. `read`: entries looked at for this page.

    With a cursor and fewer entries than asked for, the bound on work was reached: the next page goes on from there.
    """

    entries: list[AuditEntry]
    cursor: str | None
    read: int


class QueryAudit:
    """Queries of people; a page reads at most `max_read` entries, a batch at a time."""

    def __init__(self, log: AuditLog, *, max_read: int = MAX_READ, batch: int = BATCH) -> None:
        self._log = log
        self._max_read = max_read
        self._batch = batch

    async def page(self, query: AuditQuery, *, cursor: str | None = None, limit: int = 100) -> AuditPage:
        """The next entries, at most `limit`.

        :raises InvalidInput: the cursor is not of this query, the range is empty, a filter can match nothing, or
            `limit` is not 1 to 10,000.
        :raises StoreError: Redis did not answer.
        """
        before = checked(query, cursor, limit)
        found: list[AuditEntry] = []
        read = 0
        while read < self._max_read:
            maximum = min(self._batch, self._max_read - read)
            got = await self._log.search(query, before=before, maximum=maximum)
            read += got.read
            found += got.found
            if len(found) > limit:
                found = found[:limit]
                before = found[-1].id
                break
            if got.read < maximum or got.last is None:
                return AuditPage(found, None, read)
            before = got.last
            if len(found) == limit:
                break
        return AuditPage(found, None if before is None else _written(query, before), read)

    async def stats(self, tenant_id: str) -> AuditStats:
        """The log at a glance.

        :raises StoreError: Redis did not answer.
        """
        return await self._log.stats(tenant_id, sample=STATS_SAMPLE)


def checked(query: AuditQuery, cursor: str | None, limit: int) -> str | None:
    """The place where the page before ended. A filter that no entry could match is a mistake, and not an empty log.

    :raises InvalidInput: as `QueryAudit.page`.
    """
    problems = _impossible(query)
    before: str | None = None
    if not 1 <= limit <= MAX_ENTRIES:
        problems.append(Problem("limit", f"{limit} is not 1 to {MAX_ENTRIES:,}", "ask for the next page by its cursor"))
    if query.since_ms is not None and query.until_ms is not None and query.since_ms >= query.until_ms:
        problems.append(Problem("since", "is not before until", "swap them, or leave one out"))
    if cursor is not None:
        try:
            before = _place(query, cursor)
        except (ValueError, error, binascii.Error):
            hint = "take it from the page before, with the same tenant and filters"
            problems.append(Problem("cursor", "is not a cursor of this query", hint))
    if problems:
        raise InvalidInput(problems)
    return before


def _impossible(query: AuditQuery) -> list[Problem]:
    problems: list[Problem] = []
    action, outcome, decision = query.action, query.outcome, query.decision_id
    if action is not None and not any(a.label.startswith(action) for a in Action):
        hint = f"one of {', '.join(a.label for a in Action)}, or its beginning"
        problems.append(Problem("action", f"{action!r} is no action, nor the beginning of one", hint))
    if outcome is not None and outcome not in OUTCOMES:
        problems.append(Problem("outcome", f"{outcome!r} is no outcome", f"one of {', '.join(OUTCOMES)}"))
    if decision is not None and from_text(decision) is None:
        problems.append(Problem("decision_id", f"{decision!r} is not of a decision_id's form", "a UUID"))
    return problems


def _check(query: AuditQuery) -> bytes:
    return blake2b(json.encode(replace(query, since_ms=None, until_ms=None)), digest_size=4).digest()


def _written(query: AuditQuery, entry_id: str) -> str:
    ms, _, seq = entry_id.partition("-")
    return urlsafe_b64encode(_CURSOR.pack(_VERSION, int(ms), int(seq), _check(query))).decode().rstrip("=")


def _place(query: AuditQuery, cursor: str) -> str:
    raw = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
    version, ms, seq, check = _CURSOR.unpack(raw)
    if version != _VERSION or check != _check(query):
        raise ValueError("of another query")
    return f"{ms}-{seq}"
