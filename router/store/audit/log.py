"""`ports.audit.AuditLog` on Redis streams: reads a tenant's log; the scripts write it.

record  field r: B format, B action, d Redis ms, d microseconds of it, 16s decision_id, B reason (made) or code, B
        candidate (made), limit or attempt, d pin state (made) or wait in ms, B length, verdicts, [H length, seen, B
        length, offer of the chosen candidate (both in format 2, see `packing`)], msgpack of the features
half opened          B format, B action, d Redis ms, d microseconds of it, 8s provider entry, [16s decision_id (format
        2)], msgpack of the features
admin act            B 1, B action, d Redis ms, d microseconds of it, I revision after, I revision before, msgpack

A read is one XRANGE of at most `MAX_PER_READ` entries, so that no decision waits long behind it.
"""

import time
from collections import Counter
from collections.abc import Callable
from struct import Struct as Layout

from msgspec import msgpack

from router.domain.audit.entries import (
    ADMIN_ACTIONS,
    DECISIONS,
    act_entry,
    decision_entry,
    half_opened_entry,
    task_entry,
)
from router.domain.audit.records import (
    ActFeatures,
    AuditEntry,
    AuditQuery,
    AuditRead,
    AuditStats,
    DecisionFeatures,
    TaskFeatures,
)
from router.domain.decide.candidates import Offer
from router.domain.decide.outcome import NOTHING_OBSERVED, Observations
from router.domain.json import JsonObject
from router.domain.tasks.task import Action
from router.errors import InvalidInput, Problem
from router.store.keys import Keys
from router.store.packing import DAMAGE, FORMAT, FormatError, offer_in, seen
from router.store.servers.nodes import Nodes

MAX_PER_READ = 512
LARGEST_PART = 2**64 - 1
Row = tuple[bytes, dict[bytes, bytes]]

_HEAD = Layout(">BBdd16sBBdB")
_SIZE = Layout(">H")
_FORMATS = (FORMAT, FORMAT + 1)
_HALF_OPENED = Layout(">BBdd8s")
ID_BYTES = 16
_ACT = Layout(">BBddII")
_decision = msgpack.Decoder(DecisionFeatures).decode
_task = msgpack.Decoder(TaskFeatures).decode
_act = msgpack.Decoder(ActFeatures).decode


def _untimed(_seconds: float) -> None:
    """Discard the duration of a read."""


class RedisAudit:
    """Reads audit logs; the port has the promises. `on_read` receives the seconds of each read."""

    def __init__(self, keys: Keys, nodes: Nodes, *, on_read: Callable[[float], None] = _untimed) -> None:
        self._keys = keys
        self._nodes = nodes
        self._on_read = on_read

    async def search(self, query: AuditQuery, *, before: str | None = None, maximum: int = MAX_PER_READ) -> AuditRead:
        """See `ports.audit.AuditLog.search`."""
        end = "+" if query.until_ms is None else f"({max(query.until_ms, 0)}-0"
        if before is not None and (query.until_ms is None or place(before) < (query.until_ms, 0)):
            end = f"({before}"
        start = "-" if query.since_ms is None else f"{max(query.since_ms, 0)}-0"
        rows = await self._read(command="XREVRANGE", tenant_id=query.tenant_id, first=end, last=start, maximum=maximum)
        may_match = query.may_match()
        entries: list[AuditEntry] = []
        for row in rows:
            raw = row[1].get(b"r", b"")
            if may_match(raw):
                entry = readable(query.tenant_id, row)
                if query.matches(entry):
                    entries.append(entry)
        return AuditRead(entries, len(rows), rows[-1][0].decode() if rows else None)

    async def after(self, tenant_id: str, *, last: str, maximum: int = 100) -> list[AuditEntry]:
        """See `ports.audit.AuditLog.after`."""
        return [
            readable(tenant_id, row)
            for row in await self._read(
                command="XRANGE", tenant_id=tenant_id, first=f"({last}", last="+", maximum=maximum
            )
        ]

    async def entry(self, tenant_id: str, *, entry_id: str) -> AuditEntry | None:
        """See `ports.audit.AuditLog.entry`."""
        try:
            at = "{}-{}".format(*place(entry_id))
        except ValueError as fault:
            raise InvalidInput(
                [Problem("id", message=f"{entry_id!r} is not an entry of a log", hint="such as 1700000000000-0")]
            ) from fault
        rows = await self._read(command="XRANGE", tenant_id=tenant_id, first=at, last=at, maximum=1)
        return readable(tenant_id, rows[0]) if rows else None

    async def _read(self, command: str, tenant_id: str, first: str, last: str, maximum: int) -> list[Row]:
        key = self._keys.tenant(tenant_id).audit
        started = time.perf_counter()
        rows: list[Row] = await self._nodes.call(command, key, first, last, "COUNT", min(maximum, MAX_PER_READ))
        self._on_read(time.perf_counter() - started)
        return rows

    async def stats(self, tenant_id: str, *, sample: int) -> AuditStats:
        """See `ports.audit.AuditLog.stats`."""
        key = self._keys.tenant(tenant_id).audit
        entries = int(await self._nodes.call("XLEN", key))
        size = int(await self._nodes.call("MEMORY", "USAGE", key, "SAMPLES", 5) or 0)
        oldest = await self.after(tenant_id, last="0-0", maximum=1)
        counts: Counter[str] = Counter()
        newest_us: int | None = None
        before: str | None = None
        while (left := sample - counts.total()) > 0:
            read = await self.search(AuditQuery(tenant_id), before=before, maximum=min(left, MAX_PER_READ))
            if not read.found:
                break
            newest_us = newest_us or read.found[0].ts_us
            counts.update(e.action for e in read.found)
            before = read.last
        return AuditStats(
            entries=entries,
            oldest_us=oldest[0].ts_us if oldest else None,
            newest_us=newest_us,
            size_bytes=size,
            sampled=counts.total(),
            actions=dict(counts.most_common()),
        )


def place(entry_id: str) -> tuple[int, int]:
    """The position of an entry in its log, as a comparable value.

    :raises ValueError: `entry_id` is no id of a stream.
    """
    ms, _, seq = entry_id.partition("-")
    position = int(ms), int(seq)
    if max(position) > LARGEST_PART:
        raise ValueError(f"{entry_id} is beyond the ids of a stream")
    return position


def readable(tenant_id: str, row: Row) -> AuditEntry:
    """Decode one stream entry. If this version cannot read it, the entry has the action `unreadable`."""
    try:
        return entry(tenant_id, row)
    except FormatError as fault:
        at_ms = place(row[0].decode())[0]
        facts: JsonObject = {"problem": str(fault)}
        return AuditEntry(
            id=row[0].decode(),
            ts_us=at_ms * 1000,
            tenant_id=tenant_id,
            action="unreadable",
            resource_type="request",
            resource_id=None,
            user_id=None,
            ip_address=None,
            trace_id=None,
            details=facts,
        )


def entry(tenant_id: str, row: Row) -> AuditEntry:
    """Decode one stream entry.

    :raises FormatError: not a record of a format that this version reads.
    """
    entry_id, raw = row[0].decode(), row[1].get(b"r", b"")
    try:
        if raw[0] not in _FORMATS:
            raise FormatError(f"audit record of format {raw[0]}")
        return _entry(entry_id, tenant_id, Action(raw[1]), raw)
    except DAMAGE as fault:
        raise FormatError(f"audit record {entry_id}: {fault}") from fault


def decision_record(raw: bytes) -> tuple[bytes, DecisionFeatures]:
    """Decode decision id and features of the record of a decision.

    :raises FormatError: not a record of a format that this version reads.
    """
    try:
        if raw[0] not in _FORMATS:
            raise FormatError(f"audit record of format {raw[0]}")
        _, _, _, _, decision, _, _, _, count = _HEAD.unpack_from(raw)
        return decision, _decision(_split(raw, count)[2])
    except DAMAGE as fault:
        raise FormatError(f"audit record: {fault}") from fault


def _split(raw: bytes, count: int) -> tuple[Observations, Offer | None, bytes]:
    """The observations of a decision's row, the offer of the chosen candidate, and the packed features."""
    packed = raw[_HEAD.size + count :]
    if raw[0] == FORMAT:
        return NOTHING_OBSERVED, None, packed
    end = _SIZE.size + _SIZE.unpack_from(packed)[0]
    size = packed[end]
    chosen_offer = offer_in(packed, end + 1)[0] if size else None
    return seen(packed[_SIZE.size : end]), chosen_offer, packed[end + 1 + size :]


def _entry(entry_id: str, tenant_id: str, action: Action, raw: bytes) -> AuditEntry:
    if action is Action.BREAKER_HALF_OPENED:
        _, _, ms, us, provider = _HALF_OPENED.unpack_from(raw)
        end = _HALF_OPENED.size if raw[0] == FORMAT else _HALF_OPENED.size + ID_BYTES
        decision_id, features = raw[_HALF_OPENED.size : end] or None, _decision(raw[end:])
        at_us = int(ms) * 1000 + int(us)
        return half_opened_entry(
            entry_id=entry_id, ts_us=at_us, tenant_id=tenant_id, f=features, provider=provider, decision_id=decision_id
        )
    if action in ADMIN_ACTIONS:
        _, _, ms, us, revision, before = _ACT.unpack_from(raw)
        act = _act(raw[_ACT.size :])
        return act_entry(
            entry_id=entry_id,
            ts_us=int(ms) * 1000 + int(us),
            tenant_id=tenant_id,
            action=action,
            f=act,
            revision=revision,
            before=before,
        )
    _, _, ms, us, decision, code, index, third, count = _HEAD.unpack_from(raw)
    at_us = int(ms) * 1000 + int(us)
    if action in DECISIONS:
        row_seen, chosen_offer, packed = _split(raw, count)
        return decision_entry(
            entry_id=entry_id,
            ts_us=at_us,
            tenant_id=tenant_id,
            action=action,
            f=_decision(packed),
            decision_id=decision,
            code=code,
            index=index,
            third=int(third),
            verdicts=raw[_HEAD.size : _HEAD.size + count],
            seen=row_seen,
            offer=chosen_offer,
        )
    return task_entry(
        entry_id=entry_id,
        ts_us=at_us,
        tenant_id=tenant_id,
        action=action,
        f=_task(raw[_HEAD.size + count :]),
        decision_id=decision,
        attempt=index,
    )
