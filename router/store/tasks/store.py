"""`ports.tasks.TaskStore` on Redis: delivery records, moves, claims, the usage outbox."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router.domain.ids import partition_in
from router.domain.tasks.task import (
    BreakerTurn,
    Final,
    Move,
    Moved,
    MoveFault,
    MoveOutcome,
    NotMoved,
    TaskRecord,
    TaskState,
    Unreadable,
)
from router.errors import StoreError
from router.log_throttle import LogThrottle
from router.ports.tasks import Claimed, OutboxEntry
from router.store.keys import Keys
from router.store.packing import FormatError, OutcomeFlag
from router.store.scripts import layouts
from router.store.scripts.load import Script, load
from router.store.servers.hashes import field_pairs
from router.store.servers.link import Command
from router.store.servers.nodes import Nodes
from router.store.servers.reads import read_each
from router.store.servers.replicas import Replicas
from router.store.tasks.records import final_in, kept_final, kept_final_in, task_record
from router.store.tasks.settle_rows import MoveBatch
from router.telemetry import Event

log = logging.getLogger("router.tasks")

SETTLED, CHANGED, FAULT = range(3)
SETTLE_RETURNS = {SETTLED: "settled", CHANGED: "changed", FAULT: "fault"}
SETTLE_KEYS = (
    "task",
    "idem",
    "job",
    "due",
    "outbox",
    "state",
    "state_policy",
    "state_user",
    "state_provider",
    "lease",
    "log",
    "audit",
    "figures",
)
_HEAD = layouts.SETTLE_REPLY.head
_BODY = _HEAD.size
_MAX_ROWS = 128
AHEAD_EVERY = 20
"""One in so many claims searches for tasks that are due too late."""
AHEAD_MARGIN_MS = 60_000
"""An upper bound of backoffs and grace times. A task that waits for its deadline waits at most for the longest
deadline.
"""
_MAX_BYTES = 1 << 20


def settle_script(**options: Any) -> Script:
    """Load lua/settle.lua and check its header against this module's calls; options as in `scripts.load`."""
    return load("settle", keys=SETTLE_KEYS, argv=("batch", "row"), returns=SETTLE_RETURNS, **options)


def claim_script(**options: Any) -> Script:
    """Load lua/claim.lua, likewise."""
    return load(
        "claim", keys=("due", "retain"), argv=("lease_ms", "max_members", "ahead_ms"), returns={0: "claimed"}, **options
    )


class Claims:
    """Decodes the replies of lua/claim.lua. A damaged due set is logged once, until it is repaired."""

    def __init__(self, entries: str) -> None:
        self._entries = entries
        self._damaged: set[bytes] = set()

    def taken(self, keys: Sequence[bytes], reply: Sequence[Any]) -> tuple[list[bytes], list[bytes]]:
        """The claimed members of the due sets `keys`: all, and those that were due too late."""
        first = 3 + int(reply[2])
        damaged = {keys[int(k) - 1] for k in reply[3:first]}
        if newly_damaged := damaged - self._damaged:
            fields = {"event": Event.STORE_ROW_FAULT}
            names = ", ".join(sorted(k.decode(errors="replace") for k in newly_damaged))
            log.error("due sets of %s are not sorted sets; their entries wait: %s", self._entries, names, extra=fields)
        self._damaged = self._damaged - set(keys) | damaged
        members = list(reply[first + 1 :: 2])
        return members, [m for k, m in zip(reply[first::2], members, strict=True) if int(k) < 0]


def _ignore_move(_move: Move, _turn: BreakerTurn) -> None:
    """Ignore a move."""


class RedisTasks:
    """Dispatched tasks; the port has the promises. `on_moved` is called for every move that was made."""

    def __init__(
        self,
        keys: Keys,
        nodes: Nodes,
        *,
        audit_max_len: int = 100_000,
        deadline_max_ms: int = 1_800_000,
        shared_calls: bool = True,
        replicas: Replicas | None = None,
        on_moved: Callable[[Move, BreakerTurn], None] = _ignore_move,
    ) -> None:
        self._keys = keys
        self._nodes = nodes
        self._replicas = replicas or Replicas(nodes)
        self._settle_library = settle_script()
        self._settle = self._settle_library
        self._claim = claim_script()
        self._claims = Claims("tasks")
        self._throttle = LogThrottle(time.monotonic)
        self._header = layouts.SETTLE_BATCH.head.pack(audit_max_len, deadline_max_ms)
        # A single node takes rows of all partitions in one call; a Cluster needs one call per partition.
        self._shared = shared_calls
        self._first = 0
        self._ahead_ms = deadline_max_ms + AHEAD_MARGIN_MS
        self._polls = 0
        self._on_moved = on_moved

    def use_functions(self, allowed: bool) -> None:
        """Settle by a function library, or by a script where the server does not allow functions."""
        self._settle = self._settle_library if allowed else self._settle_library.without_functions()

    async def records(self, task_ids: Sequence[bytes]) -> list[TaskRecord | Unreadable | None]:
        """See `ports.tasks.TaskStore.records`."""
        raws = await read_each(self._nodes, [("GET", self._keys.task(t)) for t in task_ids])
        return [_record(raw) if isinstance(raw, bytes) else raw for raw in raws]

    async def jobs(self, task_ids: Sequence[bytes]) -> list[bytes | None]:
        """See `ports.tasks.TaskStore.jobs`."""
        raws = await read_each(self._nodes, [("GET", self._keys.job(t)) for t in task_ids])
        return [None if isinstance(raw, Unreadable) else raw for raw in raws]

    async def move(self, moves: Sequence[Move], *, replicated: bool = True) -> list[MoveOutcome]:
        """See `ports.tasks.TaskStore.move`."""
        run = self._replicas.run if replicated else self._nodes.run
        outcomes: list[MoveOutcome | None] = [None] * len(moves)
        for batch in self._batches(moves):
            reply = await run(self._settle, list(batch.index), [self._header, *batch.rows])
            for row, (position, raw) in enumerate(zip(batch.positions, reply[3:], strict=True)):
                nonce, code = _HEAD.unpack_from(raw)
                if nonce != row:
                    raise StoreError("a settle reply belongs to another row")
                outcome = outcomes[position] = _outcome(moves[position], code, raw[_BODY:])
                if isinstance(outcome, Moved):
                    self._on_moved(moves[position], outcome.turn)
        return [o for o in outcomes if o is not None]

    def _batches(self, moves: Sequence[Move]) -> list[MoveBatch]:
        full: list[MoveBatch] = []
        open_: dict[int, MoveBatch] = {}
        for i, move in enumerate(moves):
            group = 0 if self._shared else self._keys.tenant(move.tenant_id).partition
            batch = open_.setdefault(group, MoveBatch())
            batch.add(move, self._keys, i)
            if len(batch.rows) >= _MAX_ROWS or batch.size >= _MAX_BYTES:
                full.append(open_.pop(group))
        return [*full, *open_.values()]

    async def claim(self, lease_ms: int, *, maximum: int) -> Claimed:
        """See `ports.tasks.TaskStore.claim`."""
        # Each call starts with another partition, so none waits until the others have nothing due.
        self._first = (self._first + 1) % self._keys.partitions
        order = (*range(self._first, self._keys.partitions), *range(self._first))
        dues = [self._keys.due(p) for p in order]
        groups = [dues] if self._shared else [[due] for due in dues]
        task_ids: list[bytes] = []
        set_back: list[bytes] = []
        now = 0
        ahead_ms = 0 if self._polls % AHEAD_EVERY else self._ahead_ms
        self._polls += 1
        for group in groups:
            if len(task_ids) >= maximum:
                break
            reply = await self._nodes.run(self._claim, group, [lease_ms, maximum - len(task_ids), ahead_ms])
            now = int(reply[1])
            taken, late = self._claims.taken(group, reply)
            task_ids += taken
            set_back += late
        return Claimed(now, tuple(task_ids), frozenset(set_back))

    async def forget_due(self, task_ids: Sequence[bytes]) -> None:
        """See `ports.tasks.TaskStore.forget_due`."""
        await self._nodes.gather([("ZREM", self._due(t), t) for t in task_ids])

    async def final_results(self, task_ids: Sequence[bytes]) -> list[Final | Unreadable | None]:
        """See `ports.tasks.TaskStore.final_results`."""
        keys = [self._keys.job(t) for t in task_ids]
        raws = await read_each(self._nodes, [("GET", key) for key in keys])
        await self._replicas.confirm([key for key, raw in zip(keys, raws, strict=True) if isinstance(raw, bytes)])
        return [_final(raw) if isinstance(raw, bytes) else raw for raw in raws]

    async def postpone(self, task_ids: Sequence[bytes], due_ms: int) -> None:
        """See `ports.tasks.TaskStore.postpone`."""
        await self._nodes.gather([("ZADD", self._due(t), "XX", due_ms, t) for t in task_ids])

    async def final_results_published(self, kept: Mapping[bytes, bytes], keep_ms: int) -> None:
        """See `ports.tasks.TaskStore.final_results_published`."""
        if keep_ms:
            try:
                await self._nodes.gather(
                    [("SET", self._keys.final(t), kept_final(body), "PX", keep_ms) for t, body in kept.items()]
                )
            except StoreError as fault:
                # A full store refuses it. The results are published, so they must not stay due.
                log.debug("final results not kept for repeats: %s", fault)
        commands: list[Command] = [("UNLINK", self._keys.job(t)) for t in kept]
        await self._nodes.gather([*commands, *(("ZREM", self._due(t), t) for t in kept)])

    async def kept_final_results(self, task_ids: Sequence[bytes]) -> list[bytes | None]:
        """See `ports.tasks.TaskStore.kept_final_results`."""
        raws = await read_each(self._nodes, [("GET", self._keys.final(t)) for t in task_ids])
        return [kept_final_in(raw) if isinstance(raw, bytes) else None for raw in raws]

    def _due(self, task_id: bytes) -> bytes:
        return self._keys.due(partition_in(task_id) % self._keys.partitions)

    async def usage_left(self) -> int:
        """See `ports.tasks.TaskStore.usage_left`."""
        sizes = await read_each(self._nodes, [("HLEN", self._keys.outbox(p)) for p in range(self._keys.partitions)])
        damaged = [str(p) for p, n in enumerate(sizes) if isinstance(n, Unreadable)]
        if damaged and self._throttle.due(",".join(damaged)) is not None:
            # Usage of these partitions stays unpublished until an operator repairs the keys; other partitions continue.
            fields = {"event": Event.STORE_ROW_FAULT, "partitions": ",".join(damaged)}
            log.error("the usage outbox of %d partitions is not a hash", len(damaged), extra=fields)
        return sum(n for n in sizes if not isinstance(n, Unreadable))

    async def usage_is_waiting(self, usage_ids: Sequence[bytes]) -> list[bool]:
        """See `ports.tasks.TaskStore.usage_is_waiting`."""
        commands = [("HEXISTS", self._outbox(u), u) for u in usage_ids]
        return [not isinstance(n, Unreadable) and bool(n) for n in await read_each(self._nodes, commands)]

    async def usage_waiting(self, maximum: int) -> list[OutboxEntry]:
        """See `ports.tasks.TaskStore.usage_waiting`."""
        keys = [self._keys.outbox(p) for p in range(self._keys.partitions)]
        found = await read_each(self._nodes, [("HRANDFIELD", key, maximum, "WITHVALUES") for key in keys])
        filled = {key: flat for key, flat in zip(keys, found, strict=True) if flat and not isinstance(flat, Unreadable)}
        await self._replicas.confirm(list(filled))
        events: list[OutboxEntry] = []
        for flat in filled.values():
            events += [OutboxEntry(usage_id=k, event=v) for k, v in field_pairs(flat)]
        return events

    async def usage_published(self, usage_ids: Sequence[bytes]) -> int:
        """See `ports.tasks.TaskStore.usage_published`."""
        dropped = await read_each(self._nodes, [("HDEL", self._outbox(u), u) for u in usage_ids])
        return sum(n for n in dropped if not isinstance(n, Unreadable))

    def _outbox(self, usage_id: bytes) -> bytes:
        return self._keys.outbox(partition_in(usage_id) % self._keys.partitions)


def _record(raw: bytes) -> TaskRecord | Unreadable:
    try:
        return task_record(raw)
    except FormatError as fault:
        return Unreadable(str(fault))


def _final(raw: bytes) -> Final | Unreadable:
    try:
        return final_in(raw)
    except FormatError as fault:
        return Unreadable(str(fault))


def _outcome(move: Move, code: int, body: bytes) -> MoveOutcome:
    try:
        return _moved(move, code, body)
    except (ValueError, LookupError) as fault:
        return MoveFault(f"its reply cannot be read: {fault!r}")


def _moved(move: Move, code: int, body: bytes) -> MoveOutcome:
    if code == SETTLED:
        return Moved(BreakerTurn(body[0]))
    if code == FAULT:
        return MoveFault(body.decode(errors="replace"))
    if not body:
        return NotMoved(None, 0)
    if move.task_id is not None:
        return NotMoved(TaskState(body[1]), body[2])
    settled = bool(body[14] & OutcomeFlag.SETTLED)
    return NotMoved(TaskState.SUCCEEDED if settled else None, 0)
