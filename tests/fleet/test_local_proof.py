"""The proof can fail: each thing it must see is taken away once, by a scripted pod on a real NATS."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from router.local import proof
from router.local.client import Caller
from router.local.proof import Step, prove
from tests.nats_client import connect
from tests.servers import NatsProcess

pytestmark = pytest.mark.usefixtures("servers")

STREAMS = {"ASSIGN": "caf.exec.assign.v1", "RESULT": "caf.exec.result.v1", "USAGE": "beamline.usage.v1.metered"}
ACTIONS = ["decision.made", "assignment.published", "result.settled"]


class ScriptedFleet:
    """Does for one tenant what a fleet does, but for what is named in `without`."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.without: set[str] = set()
        self.seen: dict[str, dict[str, Any]] = {}
        self.audit = [*ACTIONS]
        self.asked: Counter[str] = Counter()

    async def serve(self, message: Msg) -> None:
        """The reply, then assignment, result and usage."""
        body = orjson.loads(message.data)
        request_id = body["request_id"]
        replayed = request_id in self.seen and "replay" not in self.without
        if not replayed:
            self.seen[request_id] = self._decision(body) | {"decision_id": f"d-{len(self.seen)}-{message.reply}"}
        context = {"request_id": request_id, "assignment_id": f"a-{request_id}"} | (
            {"replayed": True} if replayed else {}
        )
        reply = {"ok": "decision" not in self.without, "decision": self.seen[request_id], "context": context}
        if body.get("policy_id") == "limited" and self._nth("limited") > 3 and "limit" not in self.without:
            details = {} if "retry_after_ms" in self.without else {"limit_id": "user-requests", "retry_after_ms": 9}
            reply = {"ok": False, "error": {"code": "rate_limit_exceeded", "details": details}, "context": context}
        pod = "pod-2" if len(self.seen) % 2 and "second pod" not in self.without else "pod-1"
        await self.client.publish(message.reply, orjson.dumps(reply), headers={"router-pod": pod})
        if not replayed:
            await self._run(body, context["assignment_id"])

    def _nth(self, policy: str) -> int:
        """How often this policy was asked."""
        self.asked[policy] += 1
        return self.asked[policy]

    def _decision(self, body: dict[str, Any]) -> dict[str, Any]:
        policy = body.get("policy_id", "default")
        provider, reason = "p1", "weighted"
        if policy == "sticky":
            reason = "sticky" if "pin" not in self.without else reason
            provider = f"p{len(self.seen)}" if "same provider" in self.without else provider
        elif policy == "fragile":
            moved = self._nth(policy) > 2 and "breaker" not in self.without
            provider = "acme:standby-llm" if moved else "acme:canary-llm"
        return {"provider_id": provider, "reason": reason, "policy_id": policy, "policy_revision": 1}

    async def _run(self, body: dict[str, Any], assignment_id: str) -> None:
        event = {"assignment_id": assignment_id, "request_id": body["request_id"], "tenant_id": body["tenant_id"]}
        for name, more in (
            ("ASSIGN", {"executor": {"provider_id": "p1"}, "attempt": 1}),
            ("RESULT", {"status": "success", "latency_ms": 1}),
            ("USAGE", {"provider_id": "p1", "cost": 0.1}),
        ):
            if name not in self.without:
                await self.client.publish(STREAMS[name], orjson.dumps(event | more))
        inbox = body.get("options", {}).get("result_subject")
        if inbox is not None and "final result" not in self.without:
            failed = self.seen[body["request_id"]]["provider_id"] == "acme:canary-llm"
            await self.client.publish(inbox, orjson.dumps({"status": "error" if failed else "success"}))


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[tuple[ScriptedFleet, str]]:
    """A NATS of its own with the streams, and the script behind the decide subject."""
    with NatsProcess(tmp_path / "nats") as server:
        client = await connect(server.url)
        for name, subject in STREAMS.items():
            await client.jetstream().add_stream(StreamConfig(name=name, subjects=[subject]))
        fleet = ScriptedFleet(client)
        await client.subscribe("beamline.router.v1.decide", cb=fleet.serve)
        await client.flush()
        yield fleet, server.url
        await client.close()


async def steps(fleet: ScriptedFleet, url: str, maximum: int) -> list[Step]:
    """The first steps of the proof for one tenant."""

    async def read_audit(_tenant: str, _request: str) -> list[str]:
        return fleet.audit

    found: list[Step] = []
    async with Caller(url) as caller:
        async for step in prove(caller, ["acme"], 2, read_audit):
            found.append(step)
            if len(found) == maximum:
                break
    return found


Scripted = tuple[ScriptedFleet, str]


async def test_a_fleet_that_does_it_all_passes_a_tenants_steps(scripted: Scripted) -> None:
    """Decision, assignment, result, usage, audit and replay are all seen, and limit, session and breaker after them."""
    found = await steps(*scripted, maximum=9)
    assert [s.ok for s in found] == [True] * 9, found


@pytest.mark.parametrize(
    ("without", "step"),
    [
        ("decision", "decision"),
        ("ASSIGN", "assignment in stream ASSIGN"),
        ("RESULT", "result from the worker"),
        ("USAGE", "usage event"),
        ("replay", "duplicate replays"),
        ("limit", "limit refuses with retry_after"),
        ("retry_after_ms", "limit refuses with retry_after"),
        ("pin", "sticky session holds on the other pod"),
        ("same provider", "sticky session holds on the other pod"),
        ("second pod", "sticky session holds on the other pod"),
        ("breaker", "breaker opens, traffic moves"),
        ("final result", "breaker opens, traffic moves"),
    ],
)
async def test_what_did_not_happen_fails_its_step(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, without: str, step: str
) -> None:
    """Whatever is missing, the proof ends at the step that should have seen it, and names it."""
    monkeypatch.setattr(proof, "STEP_S", 0.3)
    monkeypatch.setattr(proof, "MAX_REQUESTS", 10)
    fleet, url = scripted
    fleet.without.add(without)
    last = (await asyncio.wait_for(steps(fleet, url, maximum=9), 20))[-1]
    assert (last.name, last.ok) == (step, False)


@pytest.mark.parametrize("audit", [[], ACTIONS[:2], ["decision.made", *ACTIONS]])
async def test_an_audit_log_that_misses_or_doubles_fails_its_step(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, audit: list[str]
) -> None:
    """An audit log without an entry, or with the decision twice, is no proof."""
    monkeypatch.setattr(proof, "STEP_S", 0.3)
    fleet, url = scripted
    fleet.audit = audit
    last = (await asyncio.wait_for(steps(fleet, url, maximum=6), 20))[-1]
    assert (last.name, last.ok) == ("audit entries", False)
