"""Pods that die at every step of a request with extensions: what is left, and that a repeat puts it right.

The store is real; a pod's death is a cancelled task, before or after the act at which it dies took place.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from itertools import product
from secrets import token_hex
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from router.domain.decide.answers import answer
from router.domain.decide.decision import Answer, Code, Decided, PinState, Reason, Refused
from router.domain.decide.outcome import Admitted, LimitHit, NoCandidate, Outcome, StoredAnswer, Unavailable
from router.domain.decide.plan import Plan, plan
from router.domain.decide.request import DecideRequest
from router.domain.ids import from_text, name_in, task_id
from router.domain.policy.model import Extension, StoredPolicy, provider
from router.domain.tasks.task import TaskRecord, TaskState
from router.ports.extensions import ExtensionResult
from router.store.audit.log import RedisAudit
from router.store.claims import RedisClaims
from router.store.decide.calls import LaneSettings
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.store.tasks.store import RedisTasks
from router.telemetry import Telemetry
from router.usecases.extensions.flow import ExtensionFlow, FlowPorts
from router.usecases.extensions.health_watch import ExtensionHealthWatch
from router.usecases.extensions.pipeline import Pipeline
from router.usecases.tasks.unfinished import Unfinished
from tests.store.harness import policy
from tests.store.harness import request as request_of
from tests.store.pods import Pod
from tests.usecases.fakes.alerts import RecordedAlerts
from tests.usecases.fakes.extensions import Calls, Records

TENANT = "acme"
STEP_MS = 500
PATIENCE_S = 20.0
STEPS = 12
BUSY = Refused(Code.UNAVAILABLE, "not asked yet")
# A deadline that a loaded machine keeps, too.
PATIENT = LaneSettings(deadline_ms=10_000, retry_ms=20)
# With a lease, so that what is left behind would be seen.
BASE = policy(provider("only", weight=100, max_concurrency=1))
EXTENDED = replace(
    BASE,
    policy=replace(
        BASE.policy,
        pre=(Extension("mask", True, timeout_ms=STEP_MS),),
        post=(Extension("sign", True, timeout_ms=STEP_MS),),
    ),
)


class Fate:
    """Dies at the `at`-th act (None: never), `after` or before it took place."""

    def __init__(self, at: int | None = None, after: bool = False) -> None:
        self.at, self.after = at, after
        self.acts: list[str] = []
        self.task: asyncio.Task[ExtensionResult] | None = None

    def dies(self, act: str) -> tuple[bool, bool]:
        """Whether the pod dies before this act, or after it."""
        self.acts.append(act)
        now = self.at == len(self.acts) - 1
        return now and not self.after, now and self.after

    def die(self) -> None:
        """The end of the pod as far as this request goes."""
        assert self.task is not None
        self.task.cancel()


class Mortal:
    """Something that a pod reaches, with its acts counted."""

    def __init__(self, inner: Any, fate: Fate, names: Sequence[str]) -> None:
        self._inner, self._fate, self._names = inner, fate, names

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._inner, name)
        if name not in self._names:
            return target

        async def act(*args: Any, **kwargs: Any) -> Any:
            before, after = self._fate.dies(name)
            if before:
                self._fate.die()
                await asyncio.sleep(0)
            found = await target(*args, **kwargs)
            if after:
                self._fate.die()
                await asyncio.sleep(0)
            return found

        return act


class MortalDecisions(Mortal):
    """Likewise for rows, whose answers come by a callback."""

    def preview(self, *args: Any, claim_ms: int = 0, since: float | None = None) -> None:
        self._row("preview", *args, claim_ms=claim_ms, since=since)

    def decide(self, *args: Any) -> None:
        *row, since = args
        self._row("decide", *row, since=since)

    def _row(self, name: str, *args: Any, **kwargs: Any) -> None:
        before, after = self._fate.dies(name)
        if before:
            self._fate.die()
            return
        *rest, done = args
        row = getattr(self._inner, name)
        row(*rest, (lambda _o, _s: self._fate.die()) if after else done, **kwargs)


def read(request: DecideRequest, plan: Plan, outcome: Outcome, stamp: bytes) -> Answer:
    """As `usecases.decide.decide` reads it."""
    return answer(outcome, request, plan, explain=False)


def make_plan(asked: DecideRequest, stored: StoredPolicy) -> Plan:
    """As `usecases.decide.decide` plans."""
    return plan(asked, stored)


class World:
    """One schema; pods over it come and go."""

    def __init__(self, pod: Pod, sign: Any) -> None:
        self.pod, self.calls = pod, Calls(pre_mask={}, post_sign=sign)
        self.tasks, self.claims = RedisTasks(pod.keys, pod.nodes), RedisClaims(pod.keys, pod.nodes)
        self.telemetry = Telemetry(CollectorRegistry())

    def unfinished(self, tasks: Any, decisions: Any, claims: Any) -> Unfinished:
        """What ends decisions, over these stores."""
        return Unfinished(tasks, decisions, claims, self.telemetry, tombstone_ms=60_000, random=os.urandom)

    def extended(self, fate: Fate) -> ExtensionFlow:
        """A pod's part that is under test."""
        tasks = Mortal(self.tasks, fate, ("move", "records"))
        claims = Mortal(self.claims, fate, ("take", "complete", "abandon", "release"))
        decisions = MortalDecisions(self.pod.decisions, fate, ("remembered", "stored_answers"))
        watch = ExtensionHealthWatch(Records(), self.telemetry, RecordedAlerts(), now_ms=lambda: 1, random=os.urandom)
        pipeline = Pipeline(Mortal(self.calls, fate, ("call",)), watch, self.telemetry)
        ports = FlowPorts(
            decisions,
            tasks,
            claims,
            self.unfinished(tasks, decisions, claims),
            pipeline,
        )
        return ExtensionFlow(ports, self.telemetry, max_ms=10_000, max_running=10, wait_s=10)

    async def ask(self, asked: DecideRequest, fate: Fate) -> Answer | None:
        """One pod takes the request; None: it died on it."""
        fate.task = asyncio.ensure_future(self.extended(fate).answer(asked, EXTENDED, make_plan=make_plan, read=read))
        try:
            return (await fate.task).answer
        except asyncio.CancelledError:
            return None

    async def until_decided(self, asked: DecideRequest) -> Decided:
        """Other pods are asked again and again, as a caller would."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await self.ask(asked, Fate())
                if isinstance(found, Decided):
                    return found
                await asyncio.sleep(0.05)

    async def record(self, decision: bytes) -> TaskRecord | None:
        """The task of a decision."""
        (found,) = await self.tasks.records([task_id(decision)])
        return found if isinstance(found, TaskRecord) else None

    async def check(self, asked: DecideRequest, decided: Decided) -> None:
        """Exactly one decision counts: remembered whole, holding its lease, its task alone ready to go out."""
        keys, decision = self.pod.keys.tenant(asked.tenant_id), from_text(decided.decision.decision_id) or b""
        kept = await self.pod.decisions.remembered(asked.tenant_id, name_in(decision))
        assert kept is not None
        assert (kept.decision_id, kept.unfinished, kept.metadata) == (decision, False, {"by": "sign"})
        assert decided.decision.metadata == {"by": "sign"}
        holders = await self.pod.nodes.call("ZRANGE", keys.lease(EXTENDED.policy.providers[0].entry), 0, -1)
        assert holders == [decision]
        entries = await RedisAudit(self.pod.keys, self.pod.nodes).after(asked.tenant_id, last="0-0")
        actions = [e.action for e in entries]
        assert actions.count("decision.made") == 1 + actions.count("result.settled")
        if asked.push_assignment:
            for text in {str(e.details["decision_id"]) for e in entries if e.action == "decision.made"}:
                made = from_text(text) or b""
                record = await self.record(made)
                assert record is not None
                assert record.state is (TaskState.NEW if made == decision else TaskState.CANCELLED)
                if made == decision:
                    unfinished = self.unfinished(self.tasks, self.pod.decisions, self.claims)
                    assert record.unfinished
                    assert await unfinished.may_publish(record)


async def in_a_world(redis_url: str, run: Callable[[World], Any], sign: Any = None) -> Any:
    """Run in a schema of its own."""
    nodes = SingleNode(redis_url)
    async with Pod(nodes, Keys(schema=f"t{token_hex(5)}"), settings=PATIENT) as pod:
        found = await run(World(pod, {"metadata": {"by": "sign"}} if sign is None else sign))
    await nodes.close()
    return found


@pytest.mark.parametrize("push", [False, True])
async def test_a_pod_may_die_at_every_step(redis_url: str, push: bool) -> None:
    """Before or after every act of the good course: a repeat is decided, once, and nothing else is left."""
    died: list[tuple[str, bool]] = []

    async def one(world: World, at: int, after: bool) -> None:
        asked = request_of(TENANT, "r", push=push)
        first: Answer | None = BUSY
        while isinstance(first, Refused):  # a loaded machine misses deadlines; the fate must be met all the same
            fate = Fate(at, after)
            first = await world.ask(asked, fate)
        if first is None:
            died.append((fate.acts[-1], after))
        await world.check(asked, await world.until_decided(asked))

    await asyncio.gather(
        *(
            in_a_world(redis_url, lambda w, at=at, after=after: one(w, at, after))  # type: ignore[misc]
            for at, after in product(range(STEPS), (False, True))
        )
    )
    assert {act for act, _ in died} == {"preview", "call", "decide", "complete"}


@pytest.mark.parametrize("push", [False, True])
async def test_a_pod_may_die_while_it_takes_a_decision_back(redis_url: str, push: bool) -> None:
    """Likewise when the post extension failed first: every act of the undoing is done by somebody in the end."""
    died: set[str] = set()
    good: dict[str, Any] = {"metadata": {"by": "sign"}}

    async def one(world: World, at: int, after: bool) -> None:
        asked = request_of(TENANT, "r", push=push)
        fate = Fate(at, after)
        first = await world.ask(asked, fate)
        if first is None:
            died.add(fate.acts[-1])
        else:
            assert isinstance(first, Refused)
        world.calls.answers["beamline.ext.post.sign.v1"] = [good]
        await world.check(asked, await world.until_decided(asked))

    await asyncio.gather(
        *(
            in_a_world(redis_url, lambda w, at=at, after=after: one(w, at, after), b"?")  # type: ignore[misc]
            for at, after in product(range(STEPS), (False, True))
        )
    )
    assert {"remembered", "move", "abandon"} <= died


async def test_a_pod_may_die_while_it_takes_over(redis_url: str) -> None:
    """The one that finds a dead pod's decision dies on it, too; the next one puts it right."""
    died: set[str] = set()

    async def one(world: World, at: int, after: bool) -> None:
        asked = request_of(TENANT, "r", push=True)
        # look, pre, decide: the decision is written, and its pod is gone.
        assert await world.ask(asked, Fate(2, after=True)) is None
        claim = world.pod.keys.tenant(asked.tenant_id).claim(plan(asked, EXTENDED).name)
        await world.pod.nodes.call("DEL", claim)
        fate = Fate(at, after)
        if await world.ask(asked, fate) is None:
            died.add(fate.acts[-1])
        await world.check(asked, await world.until_decided(asked))

    await asyncio.gather(
        *(
            in_a_world(redis_url, lambda w, at=at, after=after: one(w, at, after))  # type: ignore[misc]
            for at, after in product(range(1, 6), (False, True))
        )
    )
    assert {"take", "stored_answers", "records", "move", "abandon"} <= died


async def left_unfinished(world: World) -> tuple[DecideRequest, StoredAnswer, TaskRecord]:
    """A pod died between a decision and what follows it: the request, its answer, and the record of its task."""
    asked = request_of(TENANT, "r", push=True)
    assert await world.ask(asked, Fate(2, after=True)) is None
    kept = await world.pod.decisions.remembered(asked.tenant_id, plan(asked, EXTENDED).name)
    assert kept is not None
    record = await world.record(kept.decision_id)
    assert record is not None
    return asked, kept, record


async def test_the_sweeper_takes_back_what_nobody_asks_for_again(redis_url: str) -> None:
    """A dead pod's task: not published while its claim is held, cancelled and forgotten after."""

    async def run(world: World) -> None:
        asked, kept, record = await left_unfinished(world)
        keys, name = world.pod.keys.tenant(asked.tenant_id), plan(asked, EXTENDED).name
        unfinished = world.unfinished(world.tasks, world.pod.decisions, world.claims)
        assert not await unfinished.may_publish(record)
        still = await world.record(kept.decision_id)
        assert still is not None
        assert still.state is TaskState.NEW
        await world.pod.nodes.call("DEL", keys.claim(name))
        assert not await unfinished.may_publish(record)
        after = await world.record(kept.decision_id)
        assert after is not None
        assert after.state is TaskState.CANCELLED
        assert await world.pod.decisions.remembered(asked.tenant_id, name) is None

    await in_a_world(redis_url, run)


@pytest.mark.parametrize("which", ["answer", "record"])
async def test_what_only_a_newer_pod_can_read_is_left_to_it(redis_url: str, which: str) -> None:
    """While two versions run: an unfinished decision is neither cancelled, forgotten nor published by the older one."""

    async def run(world: World) -> None:
        asked, kept, record = await left_unfinished(world)
        keys, name = world.pod.keys.tenant(asked.tenant_id), plan(asked, EXTENDED).name
        await world.pod.nodes.call("DEL", keys.claim(name))
        key = keys.idem(name) if which == "answer" else keys.task(task_id(kept.decision_id))
        raw = await world.pod.nodes.call("GET", key)
        await world.pod.nodes.call("SET", key, b"\x02" + raw[1:], "KEEPTTL")
        unfinished = world.unfinished(world.tasks, world.pod.decisions, world.claims)
        assert not await unfinished.may_publish(record)
        assert not await unfinished.take_over(asked.tenant_id, kept.decision_id, "r")
        assert await world.pod.nodes.call("GET", key) == b"\x02" + raw[1:]
        await world.pod.nodes.call("SET", key, raw, "KEEPTTL")
        still = await world.record(kept.decision_id)
        assert still is not None
        assert still.state is TaskState.NEW
        assert await world.pod.decisions.remembered(asked.tenant_id, name) == kept

    await in_a_world(redis_url, run)


class Scripted:
    """Rows that come to what the test says; all else is the real store's."""

    def __init__(self, inner: Any, previewed: Outcome, decided: Outcome) -> None:
        self._inner, self._polled, self._decided = inner, previewed, decided

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def preview(self, *args: Any, claim_ms: int = 0, since: float | None = None) -> None:
        args[-1](self._polled, bytes(8))

    def decide(self, *args: Any, since: float | None = None) -> None:
        args[-1](self._decided, bytes(8))


CLAIMED = Admitted(0, Reason.WEIGHTED, b"\x01", PinState.NONE, bytes(16))
AWAY = Unavailable(sent=False)


@pytest.mark.parametrize(("previewed", "decided"), [(AWAY, AWAY), (CLAIMED, AWAY), (NoCandidate(b"", None), AWAY)])
async def test_nothing_is_answered_past_a_required_extension(
    redis_url: str, previewed: Outcome, decided: Outcome
) -> None:
    """The store goes away at any row: `unavailable`, never what a policy without extensions would be told then."""

    def degrades(request: DecideRequest, plan: Plan, outcome: Outcome, stamp: bytes) -> Answer:
        raise AssertionError("read as for a policy without extensions")

    async def run(world: World) -> None:
        world.pod.decisions = Scripted(world.pod.decisions, previewed, decided)  # type: ignore[assignment]
        course = await world.extended(Fate()).answer(
            request_of(TENANT, "r"), EXTENDED, make_plan=make_plan, read=degrades
        )
        assert isinstance(course.answer, Refused)
        assert course.answer.code is Code.UNAVAILABLE

    await in_a_world(redis_url, run)


async def test_a_decision_that_slipped_past_the_extensions_is_taken_back(redis_url: str) -> None:
    """The look was refused by a limit that has room again at the decide row: nobody is told of that decision."""

    async def run(world: World) -> None:
        asked = request_of(TENANT, "r")
        real = world.pod.decisions
        scripted = Scripted(real, LimitHit(0, 5), CLAIMED)
        scripted.decide = real.decide  # type: ignore[method-assign, assignment]
        world.pod.decisions = scripted  # type: ignore[assignment]
        answered = await world.extended(Fate()).answer(asked, EXTENDED, make_plan=make_plan, read=read)
        assert isinstance(answered.answer, Refused)
        assert answered.dispatch is None
        assert world.calls.sent == []
        world.pod.decisions = real
        await world.check(asked, await world.until_decided(asked))

    await in_a_world(redis_url, run)


async def test_a_claim_outlives_its_pipeline_and_no_more(redis_url: str) -> None:
    """Its life time is the worst case of the policy's calls and a second; it is gone when the decision is done."""

    async def run(world: World) -> None:
        asked = request_of(TENANT, "r")
        assert await world.ask(asked, Fate(0, after=True)) is None
        key = world.pod.keys.tenant(asked.tenant_id).claim(plan(asked, EXTENDED).name)
        left = await world.pod.nodes.call("PTTL", key)
        assert 0 < left <= 2 * (STEP_MS + 20) + 1000
        await world.until_decided(asked)
        assert await world.pod.nodes.call("EXISTS", key) == 0

    await in_a_world(redis_url, run)
