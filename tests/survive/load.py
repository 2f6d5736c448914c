"""A steady load whose callers behave as callers must: who gets no decision asks again with the same id.

Most requests are decided and reported by their caller; some are pushed to a worker. One more tenant asks for more than
its limit allows, so that an outage that lets too much through is seen.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Self

import orjson
from msgspec import Struct
from nats.errors import Error as NatsError

from tests.chaos.load import TENANTS as CHAOS_TENANTS
from tests.chaos.load import TOLD, Asked
from tests.chaos.worker import JOB_TYPE
from tests.fleet.foreign import RESULT, Body, Foreign, Reply

PATIENCE_S = 6.0
"""How long a caller waits for an answer. None within it: the request hangs."""
AGAIN_S, AGAIN_AT_MOST_S = 0.1, 1.6
"""How long a caller waits before it asks again; each time twice as long, up to a bound."""
_TICK_S = 0.02
MAX_OPEN = 600
PUSHED_EVERY = 4
BOUNDED = "bounded"
BOUND, WINDOW_MS = 10, 2_000
"""What the tenant `bounded` may have in any window of this length."""
BOUNDED_RATE = 15.0

_LIMIT = {"id": "all", "scope": "tenant", "resource": "requests", "limit": BOUND, "window": "2s", "algorithm": "log"}
TENANTS: dict[str, Body] = {
    "leased": CHAOS_TENANTS["leased"],
    "broken": CHAOS_TENANTS["broken"],
    "sticky": CHAOS_TENANTS["sticky"],
    BOUNDED: {"version": "1.0", "providers": [{"name": "alpha", "weight": 100}], "limits": [_LIMIT]},
}
_ASKING = tuple(name for name in TENANTS if name != BOUNDED)

OK, HUNG, CUT, NO_POD = "ok", "hung", "cut", "no responders"
"""Outcomes beside the codes of refusals. CUT: the caller's own connection went while it waited."""


class Ask(Struct, frozen=True):
    """One question and what came of it; times are the loop's seconds."""

    began: float
    ended: float
    outcome: str

    @property
    def took_s(self) -> float:
        """From question to answer."""
        return self.ended - self.began


class SteadyLoad:
    """`async with SteadyLoad(caller, rate)`: so many new requests a second until `stop`."""

    def __init__(self, caller: Foreign, rate: float) -> None:
        self._caller = caller
        self._rate = rate
        self.asked: dict[str, Asked] = {}
        """All requests but those of `bounded`."""
        self.asks: list[Ask] = []
        self.bounded: Counter[str] = Counter()
        self.bounded_asks: list[Ask] = []
        self.late_answers: list[Ask] = []
        """Answers that came after their caller's patience had ended; their asks are in `asks` as HUNG."""
        self.lateness: list[tuple[float, float]] = []
        """Moment, and by how many seconds this process's own timer was late: what a machine without CPU does to all."""
        self.wrong: list[str] = []
        """Answers that carry what belongs to another request, or that cannot be read."""
        self._open: set[asyncio.Task[None]] = set()
        self._ticking: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._ticking = [
            asyncio.create_task(self._tick(self._rate, self._ask)),
            asyncio.create_task(self._tick(BOUNDED_RATE, self._ask_bounded)),
        ]
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()
        for task in [*self._open, self._watching]:
            task.cancel()
        await asyncio.gather(*self._open, *self._ticking, self._watching, return_exceptions=True)

    def stop(self) -> None:
        """No new requests."""
        for task in self._ticking:
            task.cancel()

    async def finish(self, within_s: float) -> bool:
        """Whether everybody who asked was answered in time."""
        self.stop()
        if self._open:
            await asyncio.wait(set(self._open), timeout=within_s)
        return not self._open

    async def _tick(self, rate: float, ask: Callable[[int], Coroutine[None, None, None]]) -> None:
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        while True:
            if len(self._open) < MAX_OPEN:
                number += 1
                task = asyncio.create_task(ask(number))
                self._open.add(task)
                task.add_done_callback(self._ended)
            due = max(due + 1 / rate, loop.time() - 0.5)
            await asyncio.sleep(due - loop.time())

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self.lateness.append((due, loop.time() - due))

    def most_admitted(self, since: float) -> int:
        """How many of `bounded` were surely admitted in one window since a moment: asked and answered within it."""
        admitted = [a for a in self.bounded_asks if a.outcome == OK and a.began >= since]
        ends = (first.began + WINDOW_MS / 1000 for first in admitted)
        return max(
            (sum(end - WINDOW_MS / 1000 <= a.began and a.ended < end for a in admitted) for end in ends), default=0
        )

    def late_s(self, since: float) -> float:
        """The worst of `lateness` since a moment."""
        return max((late for due, late in self.lateness if due >= since), default=0.0)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.wrong.append(repr(error))

    async def _ask(self, number: int) -> None:
        body = _request(number, _ASKING[number % len(_ASKING)])
        one = self.asked[body["request_id"]] = Asked(body)
        while not one.answered:
            one.asks += 1
            reply = await self._once(body, self.asks)
            if reply is None or not reply.ok:
                await asyncio.sleep(min(AGAIN_S * 2 ** (one.asks - 1), AGAIN_AT_MOST_S))
                continue
            one.decisions.add(reply.decision["decision_id"])
        if not one.pushed:
            await self._report(one)

    async def _ask_bounded(self, number: int) -> None:
        """Asked once: a refusal is what it is asked for."""
        body = {
            "version": "1",
            "tenant_id": BOUNDED,
            "request_id": f"bounded-{number}",
            "task": {"type": JOB_TYPE, "payload": {}},
        }
        reply = await self._once(body, self.bounded_asks)
        self.bounded[HUNG if reply is None else OK if reply.ok else str(reply.error["code"])] += 1

    async def _once(self, body: Body, asks: list[Ask]) -> Reply | None:
        """Ask, and add it to `asks`; None: no pod has answered."""
        loop = asyncio.get_running_loop()
        began, breaks = loop.time(), self._breaks
        reply = None
        try:
            coming = await self._caller.send(orjson.dumps(body))
            await asyncio.wait({coming}, timeout=PATIENCE_S)
        except (ConnectionError, NatsError):
            outcome = CUT
        else:
            if coming.done():
                reply, outcome = self._read(body, coming.result())
            else:
                stood = self._breaks == breaks and self._caller.client.is_connected
                outcome = HUNG if stood else CUT
                if asks is self.asks and stood:
                    coming.add_done_callback(lambda came: self._came_late(began, came))
        asks.append(Ask(began, loop.time(), outcome))
        return reply

    def _came_late(self, began: float, came: "asyncio.Future[Reply]") -> None:
        if not came.cancelled() and came.result().data:
            self.late_answers.append(Ask(began, asyncio.get_running_loop().time(), HUNG))

    def _read(self, body: Body, reply: Reply) -> tuple[Reply | None, str]:
        if not reply.data:  # the server itself says that nobody listens
            return None, NO_POD
        try:
            whose = {reply.context.get(name) for name in ("tenant_id", "request_id")}
            outcome = OK if reply.ok else str(reply.error["code"])
        except (ValueError, KeyError) as fault:
            self.wrong.append(f"{body['request_id']}: {fault!r} in {reply.data[:200]!r}")
            return None, "unreadable"
        if whose - {body["tenant_id"], body["request_id"], "", None}:  # a refused request may not have been read
            self.wrong.append(f"{body['request_id']} was answered with what belongs to {whose}")
        return reply, outcome

    @property
    def _breaks(self) -> int:
        return int(self._caller.client.stats["reconnects"])

    async def _report(self, one: Asked) -> None:
        """Published until the stream has it, so it may well be there twice; it is to be metered once."""
        result = {"version": "1", "tenant_id": one.body["tenant_id"], "request_id": one.body["request_id"]}
        data = orjson.dumps(result | {"status": "success", "latency_ms": 5, "cost": 0.001})
        while True:
            try:
                await self._caller.client.jetstream().publish(RESULT, data, timeout=1)
            except (NatsError, TimeoutError):
                await asyncio.sleep(AGAIN_S)
            else:
                return


def _request(number: int, tenant: str) -> Body:
    pushed = number % PUSHED_EVERY == 0
    more = {"result_subject": f"{TOLD}.{tenant}"} if pushed else {"meter": True}
    return {
        "version": "1",
        "tenant_id": tenant,
        "request_id": f"steady-{number}",
        "task": {"type": JOB_TYPE, "payload": {"plan": [("ok", 5)]}},
        "push_assignment": pushed,
        "context": {"user_id": f"u-{number % 20}", "session_id": f"s-{number % 50}"},
        "options": {"deadline_ms": 2_500, "retry": {"max_attempts": 3, "backoff_ms": 50}} | more,
    }
