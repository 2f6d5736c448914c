"""A steady load of tasks. Most are pushed; the others the caller runs itself and reports, to have them metered.

Who gets no answer, or one that settles nothing, asks again with the same id.
"""

import asyncio
import random
from types import TracebackType
from typing import Self

import orjson
from msgspec import Struct
from nats.errors import Error as NatsError

from tests.chaos.worker import JOB_TYPE
from tests.fleet.foreign import RESULT, Body, Foreign

TOLD = "told"
"""Below it callers are told how their tasks ended; a stream holds that."""
PATIENCE_S = 1.0
AGAIN_S = 0.2
MAX_OPEN = 150
PUSHED = 0.9
QUICK_DEADLINE_MS = 2_500
SLOW_DEADLINE_MS = 90_000

_LEASES = {"id": "slots", "scope": "tenant", "resource": "concurrency", "limit": 5_000}
_COSTS = {"id": "spend", "scope": "tenant", "resource": "cost", "limit": 1_000_000_000, "window": "1h"}
_EXACT = {
    "id": "exact",
    "scope": "user",
    "resource": "requests",
    "limit": 10_000,
    "window": "60s",
    "algorithm": "log",
}
_PROVIDERS = [
    {"name": "alpha", "weight": 60, "expected_latency_ms": 100, "expected_cost": 0.01, "max_concurrency": 5_000},
    {"name": "beta", "weight": 40, "expected_latency_ms": 100, "expected_cost": 0.02},
]
_BREAKER = {"enabled": True, "failure_threshold": 5, "timeout_ms": 1_000, "when_all_open": "last_resort"}
_RULES = [{"when": {"status": ["timeout", "5xx"]}, "retry": 1, "to": "beta"}]

TENANTS: dict[str, Body] = {
    "leased": {"version": "1.0", "providers": _PROVIDERS, "limits": [_LEASES, _COSTS]},
    "patient": {"version": "1.0", "providers": _PROVIDERS, "limits": [_LEASES]},
    "broken": {"version": "1.0", "providers": _PROVIDERS, "fallbacks": _RULES, "circuit_breaker": _BREAKER},
    "sticky": {"version": "1.0", "providers": _PROVIDERS, "limits": [_EXACT], "sticky": {"enabled": True, "ttl": "1m"}},
}
"""`patient` has long deadlines: whatever is lost there is seen, not swept up by a deadline that passes soon."""

_OK = ("ok", 5)
_PLANS: tuple[tuple[int, tuple[tuple[str, int], ...]], ...] = (
    (58, (_OK,)),
    (8, (("error", 5), _OK)),
    (6, (("reject", 0), _OK)),
    (6, (("ok", 800),)),
    (3, (("ok", 6_000), _OK)),
    (5, (("bug", 5), _OK)),
    (6, (("error", 5),)),
    (4, (("reject", 0),)),
    (4, (("cancelled", 5), ("error", 5), _OK)),
)


class Asked(Struct):
    """One request: how often it was asked, which decisions came back, and which refusals on the way."""

    body: Body
    asks: int = 0
    decisions: set[str] = set()

    @property
    def pushed(self) -> bool:
        """Whether the fleet dispatches it."""
        return self.body["push_assignment"] is True

    @property
    def answered(self) -> bool:
        """Whether there is a decision."""
        return bool(self.decisions)


class Load:
    """`async with Load(…)`: so many new tasks a second until `stop`; `finish` waits until all are answered."""

    def __init__(self, caller: Foreign, seed: int, rate: float) -> None:
        self._caller = caller
        self._seed = seed
        self._rate = rate
        self.asked: dict[str, Asked] = {}
        self.refusals: dict[str, int] = {}
        self.unanswered = 0
        self.faults: list[str] = []
        self._open: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def open(self) -> int:
        """Askers that wait."""
        return len(self._open)

    @property
    def answered(self) -> int:
        """Requests with a decision."""
        return sum(one.answered for one in self.asked.values())

    def stop(self) -> None:
        """No new tasks."""
        if self._ticking is not None:
            self._ticking.cancel()

    async def finish(self, within_s: float) -> bool:
        """Whether everybody who asked was answered in time."""
        self.stop()
        if self._open:
            await asyncio.wait(set(self._open), timeout=within_s)
        return not self._open

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if len(self._open) < MAX_OPEN:
                self.ask()
            due = max(due + 1 / self._rate, loop.time())
            await asyncio.sleep(due - loop.time())

    def ask(self) -> Asked:
        """One more request; every tenth by two askers at once, every tenth once more later."""
        number = len(self.asked) + 1
        dice = random.Random(f"{self._seed}/{number}")  # noqa: S311 - repeatable on purpose
        plan = dice.choices([p for _, p in _PLANS], [w for w, _ in _PLANS])[0]
        one = self._add(_request(dice, f"chaos-{number}", dice.choice(list(TENANTS)), plan))
        if dice.random() < 0.2:
            self._go(one, dice.choice((0.0, 1.5)))
        return one

    def ask_of(self, tenant: str) -> Asked:
        """One request of this tenant whose task is done at once, if nothing hinders it."""
        number = len(self.asked) + 1
        dice = random.Random(f"{self._seed}/{number}")  # noqa: S311 - repeatable on purpose
        return self._add(_request(dice, f"chaos-{number}", tenant, (_OK,)))

    def _add(self, body: Body) -> Asked:
        one = self.asked[body["request_id"]] = Asked(body)
        self._go(one, 0.0)
        return one

    def _go(self, one: Asked, after_s: float) -> None:
        task = asyncio.create_task(self._until_decided(one, after_s))
        self._open.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.faults.append(repr(error))

    async def _until_decided(self, one: Asked, after_s: float) -> None:
        await asyncio.sleep(after_s)
        data = orjson.dumps(one.body)
        while True:
            one.asks += 1
            try:
                reply = await self._caller.raw(data, within_s=PATIENCE_S)
            except (TimeoutError, ConnectionError, NatsError):
                self.unanswered += 1
                continue
            if not reply.data:  # no responders: the server itself says that no pod listens
                self.unanswered += 1
                await asyncio.sleep(AGAIN_S)
                continue
            body = reply.body
            if body["ok"]:
                one.decisions.add(body["decision"]["decision_id"])
                if not one.pushed:
                    await self._report(one)
                return
            code = body["error"]["code"]
            self.refusals[code] = self.refusals.get(code, 0) + 1
            await asyncio.sleep(AGAIN_S)

    async def _report(self, one: Asked) -> None:
        """A result without a message id, published until the stream has it: it may well be there twice.

        Who asks twice reports twice, too; it is to be metered once.
        """
        result = {"version": "1", "tenant_id": one.body["tenant_id"], "request_id": one.body["request_id"]}
        data = orjson.dumps(result | {"status": "success", "latency_ms": 5, "cost": 0.001})
        while True:
            try:
                await self._caller.client.jetstream().publish(RESULT, data, timeout=PATIENCE_S)
            except (NatsError, TimeoutError):
                await asyncio.sleep(AGAIN_S)
            else:
                return


def _request(dice: random.Random, request_id: str, tenant: str, plan: tuple[tuple[str, int], ...]) -> Body:
    pushed = dice.random() < PUSHED
    return {
        "version": "1",
        "tenant_id": tenant,
        "request_id": request_id,
        "task": {"type": JOB_TYPE, "payload": {"plan": plan}},
        "push_assignment": pushed,
        "context": {"user_id": f"u-{dice.randrange(20)}", "session_id": f"s-{dice.randrange(50)}"},
        "options": {
            "deadline_ms": SLOW_DEADLINE_MS if tenant == "patient" else QUICK_DEADLINE_MS,
            "retry": {"max_attempts": 3, "backoff_ms": 50},
        }
        | ({"result_subject": f"{TOLD}.{tenant}"} if pushed else {"meter": True}),
    }
