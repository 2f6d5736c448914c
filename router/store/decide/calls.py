"""Calls of the decide script on the wire: the content of one write, and which reply belongs to which batch.

A write contains UNLINKs of unused work items. Then come, for each batch, SETs of its work items and one call. A work
item is set with a short life before the call that needs it. The script extends the life for an admitted row; the work
items of other rows are removed by the next write, or expire.
"""

import logging
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from redis.exceptions import ResponseError

from router.store.decide.batch import Batch
from router.store.keys import MARKER_MS
from router.store.scripts import layouts
from router.store.scripts.load import LIBRARIES, Script
from router.store.servers.link import Link

log = logging.getLogger(__name__)

_BATCH_HEADER = layouts.DECIDE_BATCH.head
_JOB_MS = 10_000
_LIST_LIBRARIES = ("FUNCTION", "LIST", "LIBRARYNAME", f"{LIBRARIES}*")
MAX_LIBRARIES = 16
"""A version has two libraries."""
_ASKING = b"*1\r\n$6\r\nASKING\r\n"
NOT_REPLICATED = object()


class LaneSettings(Struct, frozen=True):
    """Bounds of one call. Times in milliseconds; `call_budget_ms` bounds the time that a call keeps Redis busy.

    `missed_until_down`: consecutive missed deadlines after which the lane is down and refuses at once. `wait_replicas`:
    the number of replicas that must have a call's writes before it is answered, within half a deadline; otherwise the
    outcome of its rows is unknown. `deadline_max_ms`: the longest deadline of a task; a lease that lasts longer was
    taken before Redis' clock was set back.
    """

    deadline_ms: float = 50
    max_rows: int = 256
    max_bytes: int = 1 << 20
    call_budget_ms: float = 3
    missed_until_down: int = 3
    wait_replicas: int = 0
    retry_ms: float = 100
    audit_max_len: int = 100_000
    audit_ms: int = 8 * 86_400_000
    publish_grace_ms: int = 3_000
    idempotency_ms: int = 86_400_000
    deadline_max_ms: int = 1_800_000


class Calls:
    """Sends calls and receives their replies; one write and its replies at a time. `now_ms` gives Redis time."""

    def __init__(self, link: Link, script: Script, settings: LaneSettings, now_ms: Callable[[], float]) -> None:
        self._link = link
        self._script = script
        self._settings = settings
        self._now_ms = now_ms

    async def send(self, batches: list[Batch], unlinks: list[bytes]) -> None:
        """Send one write.

        :raises StoreUnavailable: there is no connection; nothing was sent.
        :raises OutcomeUnknown: the connection broke while writing.
        """
        await self._link.send_packed(self._wire(batches, unlinks))

    def _wire(self, batches: list[Batch], unlinks: list[bytes]) -> list[bytes]:
        """The commands of one write."""
        parts = self._link.pack([("UNLINK", key) for key in unlinks])
        for b in batches:
            for command in (
                *self._link.pack_each([("SET", k, job, "PX", _JOB_MS) for k, job in b.jobs]),
                self._command(b),
            ):
                parts += [_ASKING, command] if b.asking else [command]
        return parts

    def _command(self, b: Batch) -> bytes:
        """The call of a batch."""
        return b.command(self._script.call, self._header())

    def _header(self) -> bytes:
        """The batch's header. Once the call's own deadline has passed it writes nothing, even for rows that would wait
        longer.
        """
        s = self._settings
        not_after = self._now_ms() + s.deadline_ms
        bounds = s.idempotency_ms, s.audit_max_len, s.audit_ms, s.publish_grace_ms
        return _BATCH_HEADER.pack(*bounds, not_after, s.deadline_max_ms)

    async def receive(self, batches: list[Batch], before: int) -> list[Any]:
        """The reply of each batch's call, after `before` other replies.

        :raises OutcomeUnknown: not answered in time, or the connection broke.
        """
        counts = [(len(b.jobs) + 1) * (2 if b.asking else 1) for b in batches]
        replies = await self._link.receive(before + sum(counts))
        call_replies: list[Any] = []
        at = before
        for b, count in zip(batches, counts, strict=True):
            at += count
            reply = replies[at - 1]
            call_replies.append(await self._load_and_call(b) if self._script.missing(reply) else reply)
        return call_replies if await self._replicated(batches) else [NOT_REPLICATED] * len(batches)

    async def _load_and_call(self, b: Batch) -> Any:
        """Load the script and send the call again: the node is new or has lost its scripts, so nothing was executed."""
        if not self._script.library:
            by_source = b.command((b"EVAL", self._script.source), self._header())
            await self._link.send_packed([_ASKING, by_source] if b.asking else [by_source])
            return (await self._link.receive(2 if b.asking else 1))[-1]
        call = [_ASKING, self._command(b)] if b.asking else [self._command(b)]
        await self._link.send_packed([*self._link.pack([self._script.load, _LIST_LIBRARIES]), *call])
        loaded, libraries, *_, reply = await self._link.receive(2 + len(call))
        if isinstance(loaded, ResponseError):
            log.error("Redis refused to load a script: %s", loaded)
            return loaded
        # A node keeps libraries forever. When several versions have accumulated, all others are removed; a pod that
        # still calls one loads it again.
        if isinstance(libraries, list) and len(libraries) > MAX_LIBRARIES:
            names = {dict(zip(lib[::2], lib[1::2], strict=True))[b"library_name"] for lib in libraries}
            others = names - {self._script.call[1]}
            await self._link.send([("FUNCTION", "DELETE", name) for name in others])
            await self._link.receive(len(others))
        return reply

    async def _replicated(self, batches: list[Batch]) -> bool:
        """Whether enough replicas have all writes that the replies depend on.

        WAIT covers only this connection's own writes. A replay writes nothing, and repeats what another pod wrote
        perhaps a millisecond ago. So this method writes a key first: it follows the other pod's write in the
        replication stream.
        """
        required = self._settings.wait_replicas
        if not required or not batches:
            return True
        key = batches[0].waiting[0].keys.wait
        wait = ("WAIT", required, max(1, int(self._settings.deadline_ms / 2)))
        await self._link.send([("SET", key, b"", "PX", MARKER_MS), wait])
        written, replicas = await self._link.receive(2)
        if isinstance(written, ResponseError):
            return False
        return isinstance(replicas, int) and replicas >= required
