"""Pods that settle results on a real store, and die at a chosen act."""

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
from prometheus_client import CollectorRegistry

from router.domain.audit.records import AuditEntry
from router.domain.decide.request import Options
from router.domain.ids import partition_in
from router.domain.json import JsonObject
from router.domain.policy.limits import limit
from router.domain.policy.model import StoredPolicy, TenantPolicies, provider
from router.domain.policy.vocabulary import Resource, Scope
from router.errors import StoreUnavailable
from router.ports.bus import Publication, Published
from router.store.audit.log import RedisAudit
from router.store.servers.replicas import Replicas
from router.store.tasks.delivery_failures import RedisDeliveryFailures
from router.store.tasks.store import RedisTasks
from router.telemetry import Telemetry
from router.usecases.messages.deliveries import DeadLetters
from router.usecases.messages.isolation_violations import IsolationViolations
from router.usecases.tasks.acks import Acks
from router.usecases.tasks.final_results import DEFAULT_KEEP, FinalResults
from router.usecases.tasks.outbox import Outbox
from router.usecases.tasks.repeats import Repeats
from router.usecases.tasks.settle import ResultSettler
from router.usecases.tasks.sweep import Sweeper
from router.usecases.tasks.task_effects import TaskEffects
from router.usecases.tasks.undispatched import Undispatched
from tests.store.harness import MINUTE, Ask, policy, request
from tests.store.pods import Pod
from tests.usecases.fakes.alerts import RecordedAlerts
from tests.usecases.fakes.bus import DEDUP_MS, NOW_MS, Line, UsageStream

TENANT = "acme"
TOKENS = limit("tokens", Scope.TENANT, Resource.TOKENS, 100, 60 * MINUTE)
STORED = policy(provider("only", weight=100, max_concurrency=1), limits=[TOKENS])
RESERVED, USED = 60, 25
MAX_STEPS = 12
INBOX = "_INBOX.x"


class Died(BaseException):
    """The end of a pod: no handler catches it."""


class Fate:
    """Dies at the `at`-th act (None: never), `after` or before it took place."""

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.at, self.after = at, after
        self.acts = 0
        self.dead = False

    def at_work(self, act: Callable[[], Any]) -> Any:
        """One act."""
        now = self.at == self.acts
        self.acts += 1
        if now and not self.after:
            self.die()
        found = act()
        if now:
            self.die()
        return found

    def die(self) -> None:
        """From now on nothing of this pod gets anywhere."""
        self.dead = True
        raise Died


class Mortal:
    """What a pod reaches, with every call an act."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner, self._fate = inner, fate

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._inner, name)
        if name == "now_ms":  # no act
            return target

        async def act(*args: Any, **named: Any) -> Any:
            if self._fate.dead:
                raise StoreUnavailable("its pod is dead")
            if name in {"usage_published", "final_results_published"}:  # of a task of its own
                return await target(*args, **named)
            # Before or after the call itself, not its beginning.
            if self._fate.at == self._fate.acts and not self._fate.after:
                self._fate.die()
            found = await target(*args, **named)
            return self._fate.at_work(lambda: found)

        return act


class Hands(NamedTuple):
    """What one pod has at work."""

    settle: ResultSettler
    acks: Acks
    sweeper: Sweeper
    outbox: Outbox
    effects: TaskEffects
    final_results: FinalResults
    repeats: Repeats
    undispatched: Undispatched


class World:
    """One store, one stream of usage, one caller; pods come and go."""

    def __init__(self, pod: Pod, stored: StoredPolicy = STORED, *, replicas: Replicas | None = None) -> None:
        self.pod, self.tasks, self.stored = pod, RedisTasks(pod.keys, pod.nodes, replicas=replicas), stored
        self.telemetry = Telemetry(CollectorRegistry())
        self.usage: list[str] = []
        self.usage_events: list[JsonObject] = []
        self.letters: list[JsonObject] = []
        self.told: list[JsonObject] = []
        self.repeated: list[tuple[str, JsonObject]] = []
        self.message_ids: list[str] = []
        self.memory_share = 0.0
        self.keep = DEFAULT_KEEP

    def get(self, tenant_id: str) -> TenantPolicies:
        """`ports.policies.PolicyLookup`."""
        return TenantPolicies(tenant_id, 1, bytes(8), {"default": self.stored})

    async def load(self, tenant_id: str) -> TenantPolicies:
        """Never asked."""
        return self.get(tenant_id)

    def hands(self, fate: Fate) -> "Hands":
        """A pod's parts that are under test."""

        def publish(publication: Publication, done: Callable[[Published], None]) -> None:
            def stored() -> None:
                body = orjson.loads(publication.payload)
                if publication.subject.endswith(".dlq"):
                    self.letters.append(body)
                elif publication.subject == INBOX:
                    self.told.append(body)
                elif publication.subject.startswith("_INBOX."):
                    self.repeated.append((publication.subject, body))
                    self.message_ids.append(publication.message_id)
                elif publication.message_id in self.usage:
                    done(Published.DUPLICATE)
                    return
                else:
                    self.usage.append(publication.message_id)
                    self.usage_events.append(body)
                done(Published.STORED)

            fate.at_work(stored)

        class Stream:
            """`ports.bus.Publisher`."""

            def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
                """Stored at once."""
                publish(publication, done)

        tasks, decisions = Mortal(self.tasks, fate), Mortal(self.pod.decisions, fate)
        stream, alerts, t = Stream(), RecordedAlerts(), self.telemetry
        letters = DeadLetters(stream, t, alerts, keep_payload=False, max_bytes=lambda: 1 << 20)
        outbox = Outbox(tasks, stream, UsageStream(), t, alerts, dedup_ms=lambda: DEDUP_MS, now_ms=lambda _: NOW_MS)
        final_results = FinalResults(tasks, stream, Line(), t, self.keep, memory_share=lambda: self.memory_share)
        repeats = Repeats(tasks, stream, t, max_bytes=lambda: 1 << 20, every_s=0.005)
        effects = TaskEffects(tasks, final_results, t, alerts, tombstone_ms=60_000, max_bytes=lambda: 1 << 20)
        isolation = IsolationViolations(t, alerts)
        parts = tasks, decisions, self, outbox, letters, effects, t, isolation
        failures = RedisDeliveryFailures(self.pod.keys, self.pod.nodes)
        settle = ResultSettler(*parts, failures, max_failures=2)
        acks = Acks(tasks, decisions, self, effects, letters, t, isolation, failures, max_failures=2)
        never: Any = None  # parts that no task here comes to
        sweeper = Sweeper(
            *(tasks, never, effects, outbox, never, never, self, t), may_work=lambda: True, now_ms=decisions.now_ms
        )
        undispatched = Undispatched(tasks, self, effects, t)
        return Hands(settle, acks, sweeper, outbox, effects, final_results, repeats, undispatched)

    def settle(self, fate: Fate) -> tuple[ResultSettler, Outbox]:
        """Those that settle."""
        hands = self.hands(fate)
        return hands.settle, hands.outbox

    async def is_due(self, task: bytes) -> bool:
        """Make what is due for a task due now; False: nothing is."""
        due = self.pod.keys.due(partition_in(task))
        return bool(await self.pod.nodes.call("ZADD", due, "XX", "CH", 0, task))

    async def audit(self) -> list[AuditEntry]:
        """The audit log, oldest first."""
        return await RedisAudit(self.pod.keys, self.pod.nodes).after(TENANT, last="0-0", maximum=1_000)

    async def actions(self) -> list[str]:
        """What the audit says."""
        return [e.action for e in await self.audit()]

    async def ask(self, name: str, tokens: int, *, push: bool = False, **options: Any) -> Any:
        """One decision."""
        push = push or "result_subject" in options
        wanted = request(TENANT, name, push=push, options=Options(tokens, **options))
        (outcome,) = await self.pod.decide(Ask(wanted, STORED, b"work" if wanted.push_assignment else None))
        return outcome


def result(**named: Any) -> bytes:
    """A success that used fewer tokens than were reserved."""
    return orjson.dumps({"version": "1", "status": "success", "job": {"type": "chat"}, "tokens": USED, **named})
