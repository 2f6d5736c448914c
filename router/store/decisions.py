"""`ports.decisions.DecisionStore` on Redis: each tenant's rows go to the node that has its partition."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from router.domain.decide.outcome import Outcome, RequestFacts, StoredAnswer
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.ids import name_in, partition_in
from router.domain.tasks.steps import StepDecision
from router.domain.tasks.task import TaskRecord, Unreadable
from router.store.audit.request_facts import request_facts
from router.store.decide.batch import WaitingRow
from router.store.decide.lanes import Lanes
from router.store.decide.replies import DECIDE_RETURNS
from router.store.keys import Keys
from router.store.packing import FormatError, decided_ms, remembered
from router.store.scripts.load import Script, load
from router.store.servers.hashes import field_pairs
from router.store.servers.link import Command
from router.store.servers.nodes import Nodes
from router.store.servers.reads import read_each
from router.store.servers.replicas import Replicas

log = logging.getLogger(__name__)

DECIDE_KEYS = (
    "idem",
    "head",
    "state",
    "state_policy",
    "state_user",
    "state_provider",
    "lease",
    "log",
    "pin",
    "audit",
    "task",
    "job",
    "due",
    "claim",
    "message",
    "steps",
)


def decide_script(**options: Any) -> Script:
    """Load lua/decide.lua and check its header against this module's calls; options as in `scripts.load`."""
    return load("decide", keys=DECIDE_KEYS, argv=("batch", "row"), returns=DECIDE_RETURNS, **options)


class RedisAnswers:
    """`ports.decisions.Answers` on Redis: reads stored answers. `remembered` waits for `replicas`: callers are told."""

    def __init__(self, keys: Keys, nodes: Nodes, replicas: Replicas | None = None) -> None:
        self._keys = keys
        self._nodes = nodes
        self._replicas = replicas or Replicas(nodes)

    async def remembered(self, tenant_id: str, name: bytes) -> StoredAnswer | None:
        """See `ports.decisions.Answers.remembered`."""
        tenant = self._keys.tenant(tenant_id)
        raw = await self._nodes.call("GET", tenant.idem(name))
        if raw is not None:
            await self._replicas.confirm([tenant.idem(name)])
        answer = _answer(raw, tenant_id, tenant.partition, name) if isinstance(raw, bytes) else None
        if isinstance(answer, Unreadable):
            log.error("a stored answer is unreadable: %s", answer.message, extra={"tenant_id": tenant_id})
            return None
        return answer

    async def stored_answers(self, names: Sequence[tuple[str, bytes]]) -> list[StoredAnswer | Unreadable | None]:
        """See `ports.decisions.Answers.stored_answers`."""
        tenants = [self._keys.tenant(tenant_id) for tenant_id, _ in names]
        commands = [("GET", tenant.idem(name)) for tenant, (_, name) in zip(tenants, names, strict=True)]
        raws = await read_each(self._nodes, commands)
        replies = zip(raws, tenants, names, strict=True)
        return [
            _answer(raw, tenant_id, t.partition, name) if isinstance(raw, bytes) else raw
            for raw, t, (tenant_id, name) in replies
        ]

    async def of_requests(self, names: Sequence[tuple[str, bytes]]) -> list[list[StepDecision] | Unreadable]:
        """See `ports.decisions.Answers.of_requests`."""
        commands: list[Command] = []
        for tenant_id, name in names:
            tenant = self._keys.tenant(tenant_id)
            commands += [("GET", tenant.idem(name)), ("HGETALL", tenant.steps(name))]
        raws = await read_each(self._nodes, commands)
        indexes = [_steps(raw) for raw in raws[1::2]]
        wanted = [
            (tenant_id, step)
            for (tenant_id, _), index in zip(names, indexes, strict=True)
            if not isinstance(index, Unreadable)
            for step in index
        ]
        answers = iter(await self.stored_answers(wanted) if wanted else [])
        found: list[list[StepDecision] | Unreadable] = []
        for (tenant_id, name), raw, index in zip(names, raws[::2], indexes, strict=True):
            partition = self._keys.tenant(tenant_id).partition
            first = _answer(raw, tenant_id, partition, name) if isinstance(raw, bytes) else raw
            if isinstance(index, Unreadable):
                found.append(index)
            else:
                steps = [(next(answers), decided) for decided in index.values()]
                found.append(_readable([(first, 0), *steps]))
        return found

    async def exists_for_any_tenant(self, decision_id: bytes) -> bool:
        """See `ports.decisions.Answers.exists_for_any_tenant`."""
        partition, name = partition_in(decision_id), name_in(decision_id)
        if partition >= self._keys.partitions:
            return False
        raw = await self._nodes.call("GET", self._keys.idem_prefix(partition) + name)
        try:
            return raw is not None and remembered(raw, partition, name).decision_id == decision_id
        except FormatError:
            return False


def _answer(raw: bytes, tenant_id: str, partition: int, name: bytes) -> StoredAnswer | Unreadable | None:
    """None: the answer belongs to another tenant of the same partition."""
    try:
        answer = remembered(raw, partition, name)
        return answer if answer.is_of(tenant_id) else None
    except FormatError as fault:
        return Unreadable(str(fault))


def _steps(raw: Any) -> dict[bytes, float] | Unreadable:
    """Names of a request's steps, and when they were decided."""
    if isinstance(raw, Unreadable):
        return raw
    try:
        return {name: decided_ms(value) for name, value in field_pairs(raw)}
    except FormatError as fault:
        return Unreadable(str(fault))


def _readable(answers: list[tuple[StoredAnswer | Unreadable | None, float]]) -> list[StepDecision] | Unreadable:
    """The decisions that are stored; one that is unreadable makes the whole request unreadable."""
    decisions: list[StepDecision] = []
    for answer, decided in answers:
        if isinstance(answer, Unreadable):
            return answer
        if answer is not None:
            decisions.append(StepDecision(answer, decided))
    return decisions


class RedisDecisions(RedisAnswers):
    """Decides with the state that all pods share; the port has the promises.

    `wait_ms` bounds the whole wait of a request. A call's deadline starts when it is sent; a row may first wait for the
    calls before it.
    """

    def __init__(
        self, keys: Keys, nodes: Nodes, lanes: Lanes, *, wait_ms: float, replicas: Replicas | None = None
    ) -> None:
        super().__init__(keys, nodes, replicas)
        self._lanes = lanes
        self._wait_ms = wait_ms
        self._now = asyncio.get_running_loop().time

    def decide(
        self,
        request: DecideRequest,
        plan: Plan,
        job: bytes | None,
        done: Callable[[Outcome, bytes], None],
        since: float | None = None,
    ) -> None:
        """See `ports.decisions.DecisionStore.decide`."""
        tenant = self._keys.tenant(request.tenant_id)
        lane, group = self._lanes.of(tenant.partition)
        decision = self._lanes.packer.decision_id(tenant, plan)
        expires = (self._now() if since is None else since) * 1000 + self._wait_ms
        # Positional, as everywhere on the hot path: by name it takes five times as long.
        waiting = WaitingRow(request, plan, tenant, job, done, decision, expires, group)
        lane.submit(waiting)
        if since is not None:
            lane.bound(waiting)

    def preview(
        self,
        request: DecideRequest,
        plan: Plan,
        done: Callable[[Outcome, bytes], None],
        *,
        claim_ms: int = 0,
        since: float | None = None,
    ) -> None:
        """See `ports.decisions.DecisionStore.preview`."""
        tenant = self._keys.tenant(request.tenant_id)
        lane, group = self._lanes.of(tenant.partition)
        decision = self._lanes.packer.decision_id(tenant, plan)
        waiting = WaitingRow(
            request=request,
            plan=plan,
            keys=tenant,
            job=None,
            done=done,
            decision=decision,
            expires=(self._now() if since is None else since) * 1000 + self._wait_ms,
            group=group,
        )
        waiting.preview, waiting.claim_ms = True, claim_ms
        lane.submit(waiting)
        if since is not None:
            lane.bound(waiting)

    def next_attempt(
        self,
        request: DecideRequest,
        plan: Plan,
        record: TaskRecord,
        job: bytes,
        done: Callable[[Outcome, bytes], None],
    ) -> None:
        """See `ports.decisions.DecisionStore.next_attempt`."""
        tenant = self._keys.tenant(request.tenant_id)
        lane, group = self._lanes.of(tenant.partition)
        waiting = WaitingRow(
            request=request,
            plan=plan,
            keys=tenant,
            job=job,
            done=done,
            decision=record.decision_id,
            expires=self._now() * 1000 + self._wait_ms,
            group=group,
        )
        waiting.attempt, waiting.reserved = record.attempt + 1, record.facts.reserved
        lane.submit(waiting)

    def now_ms(self, tenant_id: str) -> int:
        """See `ports.decisions.DecisionStore.now_ms`."""
        lane, _ = self._lanes.of(self._keys.tenant(tenant_id).partition)
        return int(lane.now_ms())

    async def request_facts(self, answers: Sequence[tuple[str, StoredAnswer]]) -> list[RequestFacts | None]:
        """See `ports.decisions.DecisionStore.request_facts`."""
        life_ms = self._lanes.settings.idempotency_ms
        return await request_facts(self._keys, self._nodes, answers, idempotency_ms=life_ms, now_ms=self.now_ms)

    def new_decision_id(self, request: DecideRequest, plan: Plan) -> bytes:
        """See `ports.decisions.DecisionStore.new_decision_id`."""
        return self._lanes.packer.decision_id(self._keys.tenant(request.tenant_id), plan)

    async def of_message(self, message_id: str, tenant_id: str | None) -> tuple[str, bytes] | None:
        """See `ports.decisions.DecisionStore.of_message`."""
        keys = self._keys
        partitions = range(keys.partitions) if tenant_id is None else (keys.tenant(tenant_id).partition,)
        if tenant_id is not None:
            name = await self._nodes.call("HGET", keys.message(partitions[0], message_id), tenant_id)
            return None if name is None else (tenant_id, name)
        message_keys = [keys.message(p, message_id) for p in partitions]
        tenants = await self._nodes.gather([("HKEYS", key) for key in message_keys])
        owners = [(key, tenant) for key, names in zip(message_keys, tenants, strict=True) for tenant in names]
        if len(owners) != 1:
            return None
        name = await self._nodes.call("HGET", *owners[0])
        return None if name is None else (owners[0][1].decode(), name)
