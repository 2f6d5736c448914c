"""The scripts on a real server, at a time that the test chooses, in a schema that nobody else uses.

`Store` packs rows as a pod does, calls the scripts synchronously and reads the replies as a pod does. Its clock is a
key that the scripts' clock include is replaced to read. Life times (PX) still run in real time, so windows and timeouts
in tests are minutes, which no test takes.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import count
from secrets import token_hex
from typing import Any, NamedTuple, cast

from msgspec import msgpack
from redis import Redis, RedisCluster
from redis.exceptions import OutOfMemoryError, ResponseError

from router.domain.audit.records import AuditEntry, TaskFeatures
from router.domain.decide.outcome import Outcome, Unavailable
from router.domain.decide.plan import Plan, plan
from router.domain.decide.request import DEFAULT_OPTIONS, DecideRequest, Options
from router.domain.policy.model import (
    Breaker,
    Fallback,
    Limit,
    Policy,
    Provider,
    Sticky,
    StoredPolicy,
    provider,
)
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import Action, Move, MoveOutcome, TaskRecord, TaskState
from router.store.audit.log import entry
from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.calls import LaneSettings
from router.store.decide.replies import HEAD, LATE, outcome
from router.store.decide.rows import MessageIndex, RowPacker
from router.store.decisions import decide_script
from router.store.keys import Keys, TenantKeys
from router.store.levers import RedisLevers, lever_scripts
from router.store.scripts.layouts import DECIDE_BATCH, SETTLE_BATCH
from router.store.scripts.load import Script
from router.store.servers.nodes import Nodes
from router.store.tasks.records import task_record
from router.store.tasks.settle_rows import MoveBatch
from router.store.tasks.store import _outcome as move_outcome
from router.store.tasks.store import claim_script, settle_script

START_MS = 1_700_000_000_000
MINUTE = 60_000
NEVER = 1e15
TEST_CLOCK = """
local function server_time()
  local clock_schema, clock_tag = KEYS[1]:match('^(%w+):?{(%w+)}')
  local clock_key = clock_tag and clock_schema .. ':clock:{' .. clock_tag .. '}' or '{' .. KEYS[1] .. '}:clock'
  return tonumber(redis.call('GET', clock_key)), 7
end
"""
SETTINGS = LaneSettings()
FEATURES = msgpack.encode(TaskFeatures("r", "default", 1, "a", None, None, None))
Client = Redis | RedisCluster


class Ask(NamedTuple):
    """One row: who asks under which policy; `job` for a pushed one."""

    request: DecideRequest
    stored: StoredPolicy
    job: bytes | None = None
    not_after: float = NEVER

    @property
    def plan(self) -> Plan:
        """What the pod would plan."""
        return plan(self.request, self.stored)


def policy(
    *names: str | Provider,
    limits: Sequence[Limit] = (),
    breaker: Breaker | None = None,
    sticky: Sticky | None = None,
    policy_id: str = "default",
    revision: int = 1,
    fallbacks: Sequence[Fallback] = (),
) -> StoredPolicy:
    """A policy of these providers, preferred in the order of their names here."""
    chosen = [
        n if isinstance(n, Provider) else provider(n, priority=len(names) - i, expected_latency_ms=100)
        for i, n in enumerate(names)
    ]
    return StoredPolicy(
        policy_id,
        revision,
        "0" * 16,
        Policy(tuple(chosen), limits=tuple(limits), breaker=breaker, sticky=sticky, fallbacks=tuple(fallbacks)),
    )


def request(
    tenant: str,
    request_id: str,
    *,
    session: str | None = None,
    user: str | None = None,
    same_as: str = "one",
    push: bool = False,
    options: Options = DEFAULT_OPTIONS,
    policy_id: str = "default",
    message_id: str | None = None,
) -> DecideRequest:
    """A request; `same_as` tells apart what its fingerprint covers."""
    return DecideRequest(
        tenant,
        request_id,
        policy_id,
        "chat",
        blake2b(same_as.encode(), digest_size=8).digest(),
        payload={},
        context={} if session is None else {"session_id": session},
        user_id=user,
        options=options,
        push_assignment=push,
        message_id=message_id,
    )


class Direct:
    """`Nodes.run` over a store's own client and clock."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        """The script, now."""
        return self._store.call(script, list(keys), list(args))


class Store:
    """One schema (`keys`: that of others, too) on one server or Cluster. `now` is the time at which scripts run."""

    def __init__(
        self,
        client: Client,
        *,
        replace: dict[str, str] | None = None,
        keys: Keys | None = None,
        message_index: MessageIndex = "all",
    ) -> None:
        self.client = client
        self.cluster = isinstance(client, RedisCluster)
        self.keys = keys or Keys(schema=f"t{token_hex(5)}")
        self.now = START_MS
        self.clock = {"clock": TEST_CLOCK} | (replace or {})
        self.decide_script = decide_script(replace=self.clock)
        self.settle_script = settle_script(replace={"clock": TEST_CLOCK})
        self.claim_script = claim_script(replace={"clock": TEST_CLOCK})
        self.levers = RedisLevers(
            self.keys, cast("Nodes", Direct(self)), lever_scripts(replace={"clock": TEST_CLOCK}), audit_max_len=1_000
        )
        self.stamps: list[bytes] = []
        self._numbers = count(1)
        random = count(1)
        drawn = lambda n: b"".join(next(random).to_bytes(4) for _ in range(n // 4))  # noqa: E731
        self._packer = RowPacker(self.keys, drawn, script=self.decide_script.version, message_index=message_index)

    def tenant(self) -> str:
        """A tenant that nobody else uses."""
        return f"tenant-{next(self._numbers)}"

    def of(self, tenant: str) -> TenantKeys:
        """The keys of a tenant."""
        return self.keys.tenant(tenant)

    def batch(self, asks: Sequence[Ask], decisions: list[bytes] | None = None) -> Batch:
        """The rows of one call; work items are stored as the pod does."""
        batch = Batch()
        for nonce, ask in enumerate(asks):
            keys = self.of(ask.request.tenant_id)
            planned = ask.plan
            decision = self._packer.decision_id(keys, planned)
            if decisions is not None:
                decisions.append(decision)
            w = WaitingRow(ask.request, planned, keys, ask.job, lambda _o, _s: None, decision, ask.not_after)
            self._packer.add(batch, w, nonce, ask.not_after)
        for key, job in batch.jobs:
            self.client.set(key, job, px=10_000)
        return batch

    def decide(self, *asks: Ask) -> list[Outcome]:
        """All rows in one call (a Cluster: one a partition); `Unavailable(sent=False)` stands for a late row."""
        told: dict[int, tuple[Outcome, bytes]] = {}
        for group in self._groups([a.request.tenant_id for a in asks]):
            batch = self.batch([asks[i] for i in group])
            reply = self.call(self.decide_script, list(batch.index), [self.header(), *self.decide_rows(batch)])
            outcomes = self.read(batch, reply)
            told |= dict(zip(group, zip(outcomes, self.stamps, strict=True), strict=True))
        self.stamps = [told[i][1] for i in range(len(asks))]
        return [told[i][0] for i in range(len(asks))]

    def preview(self, *args: Any, claim_ms: int = 0, decision: bytes | None = None, **kwargs: Any) -> Outcome:
        """One row that only looks; `decision` stands for who looks."""
        ask = Ask(*args, **kwargs)
        keys = self.of(ask.request.tenant_id)
        planned = ask.plan
        decision = decision or self._packer.decision_id(keys, planned)
        w = WaitingRow(ask.request, planned, keys, None, lambda _o, _s: None, decision, ask.not_after)
        w.preview, w.claim_ms = True, claim_ms
        batch = Batch()
        self._packer.add(batch, w, 0, ask.not_after)
        (found,) = self.read(
            batch, self.call(self.decide_script, list(batch.index), [self.header(), *self.decide_rows(batch)])
        )
        return found

    def _groups(self, tenants: Sequence[str]) -> list[list[int]]:
        """Which rows may go together."""
        groups: dict[int, list[int]] = {}
        for i, tenant in enumerate(tenants):
            groups.setdefault(self.of(tenant).partition if self.cluster else 0, []).append(i)
        return list(groups.values())

    def read(self, batch: Batch, replies: list[Any]) -> list[Outcome]:
        """The replies of one call as outcomes; the stamps are kept."""
        self.stamps = []
        found: list[Outcome] = []
        assert replies[0] == 0
        assert len(replies) == 3 + len(batch.waiting)
        for w, row in zip(batch.waiting, replies[3:], strict=True):
            nonce, code, stamp = HEAD.unpack_from(row)
            assert nonce == w.nonce
            self.stamps.append(stamp)
            found.append(Unavailable(sent=False) if code == LATE else outcome(row, code, w.decision))
        return found

    def header(self, not_after: float = float("inf")) -> bytes:
        """ARGV[1] of decide; `not_after` is the whole call's."""
        s = SETTINGS
        numbers = s.idempotency_ms, s.audit_max_len, s.audit_ms, s.publish_grace_ms
        return DECIDE_BATCH.head.pack(*numbers, not_after, s.deadline_max_ms)

    def one(self, *args: Any, **kwargs: Any) -> Outcome:
        """One row in a call of its own."""
        (found,) = self.decide(Ask(*args, **kwargs))
        return found

    def settle(self, *moves: Move) -> list[MoveOutcome]:
        """All moves in one call (a Cluster: one a partition)."""
        told: dict[int, MoveOutcome] = {}
        for group in self._groups([m.tenant_id for m in moves]):
            batch = MoveBatch()
            for i in group:
                batch.add(moves[i], self.keys, i)
            header = SETTLE_BATCH.head.pack(100_000, SETTINGS.deadline_max_ms)
            reply = self.call(self.settle_script, list(batch.index), [header, *self.settle_rows(batch)])
            told |= {i: move_outcome(moves[i], raw[4], raw[5:]) for i, raw in zip(group, reply[3:], strict=True)}
        return [told[i] for i in range(len(moves))]

    def decide_rows(self, batch: Batch) -> list[bytes]:
        """The rows as this version's script takes them."""
        return batch.rows

    def settle_rows(self, batch: MoveBatch) -> list[bytes]:
        """The rows as this version's script takes them."""
        return batch.rows

    def claim(self, partition: int, lease_ms: int, maximum: int, ahead_ms: int = 0) -> list[bytes]:
        """Tasks of one partition that are due, taken for a while."""
        reply = self.call(self.claim_script, [self.keys.due(partition)], [lease_ms, maximum, ahead_ms])
        assert reply[:3] == [0, self.now, 0]
        return list(reply[4::2])

    def call(self, script: Script, keys: list[bytes], args: list[Any]) -> Any:
        """A script at the store's own time."""
        self.set_clock(keys[0])
        command = (script.call[0].decode(), script.call[1], len(keys), *keys, *args)
        try:
            return self.client.execute_command(*command)  # type: ignore[no-untyped-call]
        except ResponseError as fault:
            if not script.missing(fault):
                raise
            try:
                self.load(script)
            except OutOfMemoryError:
                # As a pod does: a full server loads no library, and EVAL needs none.
                command = ("EVAL", script.without_functions().source, *command[2:])
            return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def set_clock(self, key: bytes) -> None:
        """The time is `now` for a script whose first key this is."""
        tag = key[key.find(b"{") :].split(b"}")[0] + b"}" if b"{" in key else b""
        clock = self.keys.schema.encode() + b":clock:" + tag if tag else b"{%b}:clock" % key
        self.client.set(clock, self.now)

    def load(self, script: Script) -> None:
        """Make the server know a script."""
        self.client.execute_command(*(script.load or ("SCRIPT", "LOAD", script.source)))  # type: ignore[no-untyped-call]

    def audit(self, tenant: str) -> list[AuditEntry]:
        """The tenant's log, oldest first."""
        rows: Any = self.client.xrange(self.of(tenant).audit)
        return [entry(tenant, row) for row in rows]

    def actions(self, tenant: str) -> list[str]:
        """What the tenant's log says, oldest first."""
        return [e.action for e in self.audit(tenant)]

    def record(self, task: bytes) -> TaskRecord | None:
        """A delivery record."""
        raw: Any = self.client.get(self.keys.task(task))
        return None if raw is None else task_record(raw)

    def value(self, key: bytes) -> bytes | None:
        """What lies under a key."""
        raw: Any = self.client.get(key)
        return raw if raw is None else bytes(raw)


Maker = Callable[..., Store]


def undispatched(
    tenant: str,
    decision: bytes,
    verdict: BreakerVerdict,
    breaker: Breaker | None = None,
    entry_of: bytes = bytes(8),
    **more: Any,
) -> Move:
    """The result of a decision that its caller ran by itself."""
    return Move(
        tenant,
        decision,
        Action.RESULT_SETTLED,
        FEATURES,
        state=TaskState.SUCCEEDED,
        verdict=verdict,
        breaker=breaker,
        provider_entry=entry_of,
        **more,
    )


def head(off: int = 0, levers: dict[bytes, int] | None = None) -> bytes:
    """A tenant's head as an operator's acts leave it."""
    levers = levers or {}
    body = b"".join(k + bytes([v]) for k, v in levers.items())
    return b"\x01" + b"\x00\x00\x00\x07rand" + bytes([off]) + len(levers).to_bytes(2) + body
