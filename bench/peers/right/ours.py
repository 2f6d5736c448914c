"""The scenario's contender of this repository: two pods; callers ask over NATS and report results to JetStream."""

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any, Self

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy
from redis import Redis

from bench.peers.right.scenario import COST_CENTS, Ask, Bound, NotAnswered, Size
from bench.processes import Placement
from bench.stack import SUBJECT, Stack

RESULT, USAGE = "caf.exec.result.v1", "beamline.usage.v1.metered"
_AGAIN = frozenset({"unavailable", "service_overloaded"})
_ANSWER_S, _SETTLED_S, _LOOK_S = 2.0, 60.0, 0.05
_COST = COST_CENTS / 100


def seed(size: Size, folder: Path) -> None:
    """The policies: a limit of requests for one tenant, a budget for the other, both over an hour."""
    limits = {
        Bound.LIMIT: {"resource": "requests", "limit": size.limit},
        Bound.BUDGET: {"resource": "cost", "limit": size.budget_cents / 100},
    }
    for bound, limit in limits.items():
        policy = {
            "version": "1.0",
            "providers": [{"name": "alpha", "weight": 60}, {"name": "beta", "weight": 40}],
            "limits": [{"id": "bound", "scope": "tenant", "window": "1h", **limit}],
        }
        (folder / bound).mkdir(parents=True)
        (folder / bound / "default.json").write_text(json.dumps(policy))


class Pods:
    """`async with Pods(folder, placement, size) as contender`. `ack_wait_s`: when the results that a killed pod had are
    delivered again; None: the fleet's 30 s.
    """

    bills = True

    def __init__(self, folder: Path, placement: Placement, size: Size, *, ack_wait_s: int | None = None) -> None:
        self._ack_wait_s = ack_wait_s
        self._stack = Stack(folder, placement, None, seed=lambda f: seed(size, f), tenants=len(Bound), pods=2)
        self._bills: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._stack.start)
            self._client: Client = await nats.connect(self._stack.nats_url)
            self._js = self._client.jetstream()
            await self._js.subscribe(USAGE, cb=self._metered, ordered_consumer=True, deliver_policy=DeliverPolicy.ALL)
            if self._ack_wait_s is not None:
                config: ConsumerConfig = (await self._js.consumer_info("RESULT", await self._results())).config
                config.ack_wait = self._ack_wait_s
                await self._js.add_consumer("RESULT", config)
        except BaseException:
            await asyncio.to_thread(self._stack.stop)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await asyncio.to_thread(self._stack.stop)

    async def ask(self, ask: Ask, instance: int) -> str | None:
        """Ask the fleet: NATS chooses the pod. The same id again gets the same decision."""
        del instance
        body = {
            "version": "1",
            "tenant_id": ask.bound,
            "request_id": ask.name,
            "policy_id": "default",
            "task": {"type": "chat", "payload": {}},
            "options": {"meter": True, "estimate": {"cost": _COST}},
        }
        try:
            message = await self._client.request(SUBJECT, json.dumps(body).encode(), timeout=_ANSWER_S)
        except nats.errors.Error as fault:
            raise NotAnswered(ask.name) from fault
        reply = json.loads(message.data)
        if reply["ok"]:
            return str(reply["decision"]["decision_id"])
        if reply["error"]["code"] in _AGAIN:
            raise NotAnswered(reply["error"]["code"])
        return None

    async def report(self, ask: Ask, token: str) -> None:
        """Publish a result, and wait until the stream has it."""
        body = {
            "version": "1",
            "tenant_id": ask.bound,
            "decision_id": token,
            "request_id": ask.name,
            "status": "success",
            "latency_ms": 10,
            "cost": _COST,
        }
        await self._js.publish(RESULT, json.dumps(body).encode(), timeout=_SETTLED_S)

    async def billed(self, admitted: set[str]) -> Counter[str]:
        """Usage events, when every result has been settled and the outboxes are empty."""
        give_up = asyncio.get_running_loop().time() + _SETTLED_S
        while asyncio.get_running_loop().time() < give_up:
            if await self._settled(admitted):
                break
            await asyncio.sleep(_LOOK_S)  # streams have no event for it
        return self._bills

    async def _settled(self, admitted: set[str]) -> bool:
        results = await self._js.consumer_info("RESULT", await self._results())
        if results.num_pending or results.num_ack_pending or admitted - self._bills.keys():
            return False
        redis: Redis = self._stack.redis
        return not list(redis.scan_iter("r1:*:~:outbox", count=5_000))

    async def _results(self) -> str:
        return str((await self._js.consumers_info("RESULT"))[0].name)

    async def _metered(self, message: Msg) -> None:
        event: dict[str, Any] = json.loads(message.data)
        self._bills[event["request_id"]] += 1

    def freeze(self) -> None:
        self._stack.redis_process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._stack.redis_process.signal(signal.SIGCONT)

    def kill(self) -> None:
        self._stack.processes["pod"].signal(signal.SIGKILL)
