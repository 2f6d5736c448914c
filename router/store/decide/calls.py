"""Calls of the decide script on the wire: the content of one write, and which reply belongs to which batch.

A write contains UNLINKs of unused work items. Then come, for each batch, SETs of its work items and one call. A work
item is set with a short life before the call that needs it. The script extends the life for an admitted row; the work
items of other rows are removed by the next write, or expire.

A node that is new, or has lost its scripts, executes nothing of a call. The call is sent again behind the command that
loads the script. A node keeps libraries forever: when several versions have accumulated, the next write removes all
others. A pod that still calls one loads it again.

With `wait_replicas` a write ends with WAIT, which covers only this connection's own writes. A replay writes nothing,
and repeats what another pod wrote perhaps a millisecond ago. So a key is written before WAIT: it follows the other
pod's write in the replication stream.
"""

import logging
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from redis.exceptions import ReadOnlyError, ResponseError

from router.store.decide.batch import Batch
from router.store.keys import MARKER_MS
from router.store.scripts import layouts
from router.store.scripts.load import LIBRARIES, Script
from router.store.servers.link import Command, Link

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
    """Packs writes and reads their replies; one write and its replies at a time. `now_ms` gives Redis time."""

    def __init__(self, link: Link, script: Script, settings: LaneSettings, now_ms: Callable[[], float]) -> None:
        self._link = link
        self._script = script
        self._settings = settings
        self._now_ms = now_ms
        self._removals: list[Command] = []
        self._ends: list[int] = []

    @property
    def has_removals(self) -> bool:
        """Whether libraries wait to be removed by the next write."""
        return bool(self._removals)

    def write(self, batches: list[Batch], unlinks: list[bytes]) -> tuple[bytes, int]:
        """The bytes of one write, and the number of its replies."""
        parts: list[bytes] = []
        count = 0
        if unlinks or self._removals:
            before = [*self._removals, *(("UNLINK", key) for key in unlinks)]
            parts, count = self._link.pack(before), len(before)
            self._removals = []
        self._ends = ends = []
        for b in batches:
            if b.jobs or b.asking or b.loading:
                count += self._add(b, parts)
            else:
                parts.append(self._command(b))
                count += 1
            ends.append(count)
        if batches and self._settings.wait_replicas:
            count += self._add_wait(batches[0], parts)
        return b"".join(parts), count

    def _add(self, b: Batch, parts: list[bytes]) -> int:
        """Add the commands of a batch, its call last. Returns their number."""
        asking = [_ASKING] if b.asking else []
        for job in self._link.pack_each([("SET", key, job, "PX", _JOB_MS) for key, job in b.jobs]):
            parts += [*asking, job]
        loads = b.loading and self._script.library
        if loads:
            parts += self._link.pack([self._script.load, _LIST_LIBRARIES])
        parts += [*asking, self._command(b)]
        return (len(b.jobs) + 1) * (1 + b.asking) + 2 * loads

    def _add_wait(self, b: Batch, parts: list[bytes]) -> int:
        required, wait_ms = self._settings.wait_replicas, max(1, int(self._settings.deadline_ms / 2))
        marker: Command = ("SET", b.waiting[0].keys.wait, b"", "PX", MARKER_MS)
        parts += [_ASKING] if b.asking else []
        parts += self._link.pack([marker, ("WAIT", required, wait_ms)])
        return 2 + b.asking

    def _command(self, b: Batch) -> bytes:
        """The call of a batch. EVAL loads a script that is no library."""
        by_source = b.loading and not self._script.library
        return b.command((b"EVAL", self._script.source) if by_source else self._script.call, self._header())

    def _header(self) -> bytes:
        """The batch's header. Once the call's own deadline has passed it writes nothing, even for rows that would wait
        longer.
        """
        s = self._settings
        not_after = self._now_ms() + s.deadline_ms
        bounds = s.idempotency_ms, s.audit_max_len, s.audit_ms, s.publish_grace_ms
        return _BATCH_HEADER.pack(*bounds, not_after, s.deadline_max_ms)

    def read(self, batches: list[Batch], replies: list[Any]) -> tuple[list[tuple[Batch, Any]], list[Batch]]:
        """Each batch with the reply of its call, and the batches that must be sent again, with the script.

        `replies`: all replies of the write. NOT_REPLICATED stands for that of a call which too few replicas have
        confirmed.
        """
        confirmed = not batches or not self._settings.wait_replicas or self._confirmed(*replies[-2:])
        executed: list[tuple[Batch, Any]] = []
        unloaded: list[Batch] = []
        for b, end in zip(batches, self._ends, strict=True):
            reply = replies[end - 1]
            if b.loading and self._script.library:
                reply = self._loaded(*replies[end - 3 - b.asking : end - 1 - b.asking]) or reply
            if not isinstance(reply, ResponseError):
                executed.append((b, reply if confirmed else NOT_REPLICATED))
                continue
            if isinstance(reply, ReadOnlyError):
                # The demoted server kept our connection, and its address may lead to the new primary now.
                self._link.close()
            if self._script.missing(reply) and not b.loading:
                b.loading = True
                unloaded.append(b)
            else:
                executed.append((b, reply))
        return executed, unloaded

    def _loaded(self, loaded: Any, libraries: Any) -> ResponseError | None:
        """Look at the replies to the load of a library; the server's refusal, if there is one."""
        if isinstance(loaded, ResponseError):
            log.error("Redis refused to load a script: %s", loaded)
            return loaded
        if isinstance(libraries, list) and len(libraries) > MAX_LIBRARIES:
            names = {dict(zip(lib[::2], lib[1::2], strict=True))[b"library_name"] for lib in libraries}
            self._removals = [("FUNCTION", "DELETE", name) for name in names - {self._script.call[1]}]
        return None

    def _confirmed(self, marker: Any, replicas: Any) -> bool:
        required = self._settings.wait_replicas
        return not isinstance(marker, ResponseError) and isinstance(replicas, int) and replicas >= required
