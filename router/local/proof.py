"""The proof: a caller that knows only subjects and JSON checks every promise of the fleet.

Each step is a function that returns what was seen, or raises `NotSeen` with what was missing. All ids are fresh, so the
proof works again on the data of an earlier run: it takes counters and breakers as it finds them.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import nats.errors
import orjson
from msgspec import Struct

from router.installed_files import examples_dir
from router.local.audit import ReadAudit
from router.local.client import Caller, Reply, patiently
from router.local.processes import LocalError

STEP_S = 15.0
MAX_SAME_POD = 60
MAX_REQUESTS = 5000
MAX_FAILURES = 40


class NotSeen(LocalError):
    """A step did not happen."""


class Step(Struct, frozen=True, kw_only=True):
    """One step: its tenant, its name, what was seen (or missing), and its latency."""

    tenant: str
    name: str
    seen: str
    ms: float
    ok: bool = True


async def prove(caller: Caller, tenants: list[str], pods: int, read_audit: ReadAudit) -> AsyncIterator[Step]:
    """Yield the steps as they happen; the last one has ok=False when the proof failed."""
    run = secrets.token_hex(4)
    proof = _Proof(caller, run, pods, read_audit)
    for tenant, name, act in proof.steps(tenants):
        started = time.monotonic()
        try:
            async with asyncio.timeout(STEP_S):
                seen, ms = await act()
        except NotSeen as e:
            yield Step(tenant=tenant, name=name, seen=str(e), ms=_ms_since(started), ok=False)
            return
        except TimeoutError:
            yield Step(tenant=tenant, name=name, seen=f"nothing within {STEP_S:g} s", ms=_ms_since(started), ok=False)
            return
        except nats.errors.Error as e:
            yield Step(
                tenant=tenant,
                name=name,
                seen=f"no answer over NATS: {e or type(e).__name__}",
                ms=_ms_since(started),
                ok=False,
            )
            return
        yield Step(tenant=tenant, name=name, seen=seen, ms=ms)


Act = Callable[[], Awaitable[tuple[str, float]]]


class _Flow(Struct):
    """One pushed task; its fields are filled step by step."""

    body: dict[str, Any]
    reply: Reply | None = None
    sent_at: float = 0.0

    @property
    def answer(self) -> Reply:
        """The reply of the first step."""
        if self.reply is None:
            raise NotSeen("the decide before it has no answer")
        return self.reply

    @property
    def assignment_id(self) -> str:
        """As the reply names it."""
        return str(self.answer.context.get("assignment_id"))


class _Proof:
    def __init__(self, caller: Caller, run: str, pods: int, read_audit: ReadAudit) -> None:
        self._caller = caller
        self._run = run
        self._pods = pods
        self._read_audit = read_audit

    def steps(self, tenants: list[str]) -> list[tuple[str, str, Act]]:
        """All steps in their order."""
        acts: list[tuple[str, str, Act]] = []
        for tenant in tenants:
            flow = _Flow(self._request(tenant, name="flow", push_assignment=True))
            acts += [
                (tenant, "decision", partial(self._decided, flow)),
                (tenant, "assignment in stream ASSIGN", partial(self._assigned, flow)),
                (tenant, "result from the worker", partial(self._resulted, flow)),
                (tenant, "usage event", partial(self._metered, flow)),
                (tenant, "audit entries", partial(self._audited, flow)),
                (tenant, "duplicate replays", partial(self._replayed, flow)),
            ]
        shown = (
            ("limit refuses with retry_after", self._limited),
            ("sticky session holds on the other pod", self._pinned),
            ("breaker opens, traffic moves", self._broken),
        )
        for (name, act), owner in zip(shown, itertools.cycle(tenants), strict=False):
            acts.append((owner, name, partial(act, owner)))
        return acts

    def _request(self, tenant: str, *, name: str, **more: Any) -> dict[str, Any]:
        return {
            "version": "1",
            "tenant_id": tenant,
            "request_id": f"proof-{self._run}-{tenant}-{name}",
            "task": {"type": "echo", "payload": {"hello": tenant}},
        } | more

    async def _ask(self, body: dict[str, Any]) -> Reply:
        return await patiently(lambda: self._caller.decide(body))

    async def _decided(self, flow: _Flow) -> tuple[str, float]:
        flow.sent_at = time.monotonic()
        flow.reply = reply = await self._ask(flow.body)
        _must(reply.ok, f"refused: {reply.error}")
        _must("assignment_id" in reply.context, "the reply names no assignment_id")
        d = reply.decision
        return f"{d['provider_id']} ({d['reason']}) by {d['policy_id']} rev {d['policy_revision']}", reply.ms

    async def _assigned(self, flow: _Flow) -> tuple[str, float]:
        seen = await self._caller.assignments.first("assignment_id", value=flow.assignment_id, within_s=STEP_S)
        if seen is None:
            raise NotSeen(f"no assignment {flow.assignment_id}")
        decided, given = flow.answer.decision["provider_id"], seen.body["executor"]["provider_id"]
        _must(given == decided, f"the assignment goes to {given}, the decision to {decided}")
        return f"attempt {seen.body['attempt']} for {given}", (seen.at - flow.sent_at) * 1000

    async def _resulted(self, flow: _Flow) -> tuple[str, float]:
        seen = await self._caller.results.first("assignment_id", value=flow.assignment_id, within_s=STEP_S)
        if seen is None:
            raise NotSeen("no worker reported a result")
        _must(seen.body["status"] == "success", f"the result says {seen.body['status']}: {seen.body}")
        return f"{seen.body['status']}, the task took {seen.body['latency_ms']} ms", (seen.at - flow.sent_at) * 1000

    async def _metered(self, flow: _Flow) -> tuple[str, float]:
        seen = await self._caller.usage.first("assignment_id", value=flow.assignment_id, within_s=STEP_S)
        if seen is None:
            raise NotSeen("no usage event")
        tenant = seen.body["tenant_id"]
        _must(tenant == flow.body["tenant_id"], f"the usage event names tenant {tenant}")
        return f"{seen.body['provider_id']}, cost {seen.body['cost']}", (seen.at - flow.sent_at) * 1000

    async def _audited(self, flow: _Flow) -> tuple[str, float]:
        expected = {"decision.made", "assignment.published", "result.settled"}
        started = time.monotonic()
        pause = 0.01
        while True:
            actions = await self._read_audit(flow.body["tenant_id"], flow.body["request_id"])
            if expected <= set(actions):
                break
            if time.monotonic() - started > STEP_S * 0.8:
                raise NotSeen(f"missing {sorted(expected - set(actions))}, there is {actions}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.25)
        decisions = actions.count("decision.made")
        _must(decisions == 1, f"{decisions} entries decision.made")
        return ", ".join(a for a in dict.fromkeys(actions)), _ms_since(started)

    async def _replayed(self, flow: _Flow) -> tuple[str, float]:
        reply = await self._ask(flow.body)
        _must(reply.ok, f"refused: {reply.error}")
        _must(reply.decision == flow.answer.decision, f"another decision: {reply.decision}")
        _must(reply.context.get("replayed") is True, "not marked as replayed")
        copies = len(self._caller.assignments.all("request_id", value=flow.body["request_id"]))
        _must(copies == 1, f"{copies} assignments")
        return f"same decision from {reply.pod}, still one assignment", reply.ms

    async def _limited(self, tenant: str) -> tuple[str, float]:
        """Uses a new user in each run, because an earlier run may have used up a user's limit."""
        for n in range(MAX_REQUESTS):
            body = self._request(tenant, name=f"limit-{n}", policy_id="limited", context={"user_id": f"u-{self._run}"})
            reply = await self._ask(body)
            if reply.ok:
                continue
            code, details = reply.error.get("code"), reply.error.get("details") or {}
            _must(code == "rate_limit_exceeded", f"refused otherwise: {reply.error}")
            wait = details.get("retry_after_ms")
            _must(isinstance(wait, int) and wait > 0, f"no retry_after_ms in {details}")
            return f"{n} admitted, then {code}: {details.get('limit_id')}, retry after {wait} ms", reply.ms
        raise NotSeen(f"{MAX_REQUESTS} requests, none refused")

    async def _pinned(self, tenant: str) -> tuple[str, float]:
        context = {"session_id": f"session-{self._run}"}
        replies: list[Reply] = []
        pods: set[str] = set()
        # The first request makes the pin; the others must find it, through every pod.
        while len(pods) < self._pods:
            _must(len(replies) < MAX_SAME_POD, f"only {sorted(pods)} answered {len(replies)} requests")
            body = self._request(tenant, name=f"sticky-{len(replies)}", policy_id="sticky", context=context)
            reply = await self._ask(body)
            _must(reply.ok, f"refused: {reply.error}")
            if replies:
                first, then = replies[0].decision["provider_id"], reply.decision["provider_id"]
                _must(first == then, f"{replies[0].pod} chose {first}, {reply.pod} chose {then}")
                _must(reply.decision["reason"] == "sticky", f"the reason is {reply.decision['reason']}")
            replies.append(reply)
            pods.add(reply.pod)
        slowest = max(r.ms for r in replies)
        return f"{replies[0].decision['provider_id']} from {' and '.join(sorted(pods))}", slowest

    async def _broken(self, tenant: str) -> tuple[str, float]:
        """Fail the first provider until the breaker moves the next request, each result settled before the next."""
        first = _preferred(tenant, policy="fragile")
        settled: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        inbox = await self._caller.inbox(settled.put_nowait)
        failures = 0
        for n in itertools.count():
            _must(failures < MAX_FAILURES, f"{first} failed {failures}× and still gets traffic")
            body = self._request(
                tenant,
                name=f"fragile-{n}",
                policy_id="fragile",
                push_assignment=True,
                task={"type": "echo", "payload": {"fail": {"error_code": "SERVER_ERROR", "provider_id": first}}},
                options={"retry": {"max_attempts": 1}, "result_subject": inbox},
            )
            reply = await self._ask(body)
            _must(reply.ok, f"refused: {reply.error}")
            provider, reason = reply.decision["provider_id"], reply.decision["reason"]
            status = (await settled.get())["status"]
            _must(status == ("error" if provider == first else "success"), f"{provider} came back with {status}")
            if provider == first:
                failures += 1
            elif failures:
                return f"{first} failed {failures}×, then {provider} ({reason}): {status}", reply.ms
            else:
                await asyncio.sleep(0.5)  # still open from an earlier run: wait for its probe
        raise AssertionError("unreachable: the loop has no end")


def _preferred(tenant: str, *, policy: str) -> str:
    """The provider with the greatest weight in an example policy."""
    document = orjson.loads((examples_dir() / "policies" / tenant / f"{policy}.json").read_bytes())
    return str(max(document["providers"], key=lambda p: p["weight"])["name"])


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotSeen(otherwise)


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1000
