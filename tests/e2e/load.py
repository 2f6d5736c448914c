"""A load while a deployment changes, and the account afterwards: every request answered, every task metered once."""

import asyncio
import itertools
import secrets
import time
from collections import Counter
from types import TracebackType
from typing import Any, Self

import nats.errors

from router.local.client import Caller, Reply
from tests.e2e.steps import must, until

PER_S = 100
PUSHED_EVERY = 4
SETTLED_S = 120.0
FOLLOWED = 20
PAUSE_S = 0.1


class Load:
    """`async with Load(nats_url, tenant) as load`: 100 requests/s, every fourth pushed as a task.

    A refusal that asks for it (`unavailable`, `service_overloaded`) is followed, as callers are told: again, with the
    same id. `retries`: so is a request without an answer (a pod was killed); else it counts as lost.
    """

    def __init__(self, nats_url: str, tenant: str, *, retries: int = 0) -> None:
        self._caller = Caller(nats_url)
        self._tenant = tenant
        self._retries = retries
        self._run = secrets.token_hex(4)
        self._sending: set[asyncio.Task[None]] = set()
        self.sent = 0
        self.lost: list[str] = []
        self.again = 0
        self.put_off = 0
        self.refused: Counter[str] = Counter()
        self.tasks: set[str] = set()
        self.pods: Counter[str] = Counter()
        self.slowest_ms = 0.0

    async def __aenter__(self) -> Self:
        await self._caller.__aenter__()
        self._pacing = asyncio.create_task(self._pace())
        return self

    async def __aexit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._pacing.cancel()
        await asyncio.gather(self._pacing, return_exceptions=True)
        await asyncio.gather(*self._sending, return_exceptions=True)
        try:
            if error[0] is None:
                await self._account()
        finally:
            await self._caller.__aexit__(*error)

    async def _pace(self) -> None:
        started = time.monotonic()
        for n in itertools.count():
            await asyncio.sleep(max(0.0, started + n / PER_S - time.monotonic()))
            one = asyncio.create_task(self._one(n))
            self._sending.add(one)
            one.add_done_callback(self._sending.discard)

    async def _one(self, n: int) -> None:
        self.sent += 1
        pushed = n % PUSHED_EVERY == 0
        request_id = f"load-{self._run}-{n}"
        body: dict[str, Any] = {
            "version": "1",
            "tenant_id": self._tenant,
            "request_id": request_id,
            "task": {"type": "echo", "payload": {"n": n}},
        }
        if pushed:
            body["push_assignment"] = True
        reply = await self._answer(body)
        if reply is None:
            self.lost.append(request_id)
            return
        self.pods[reply.pod] += 1
        self.slowest_ms = max(self.slowest_ms, reply.ms)
        if not reply.ok:
            self.refused[str(reply.error.get("code"))] += 1
        elif pushed:
            self.tasks.add(request_id)

    async def _answer(self, body: dict[str, Any]) -> Reply | None:
        unanswered = 0
        for _ in range(FOLLOWED):
            try:
                reply = await self._caller.decide(body)
            except nats.errors.Error:
                unanswered += 1
                self.again += 1
                if unanswered > self._retries:
                    return None
                continue
            if reply.ok or reply.error.get("code") not in {"unavailable", "service_overloaded"}:
                break
            self.put_off += 1
            await asyncio.sleep(PAUSE_S)
        return reply

    async def _account(self) -> None:
        must(not self.lost, f"{len(self.lost)} of {self.sent} requests were not answered: {self.lost[:5]}")
        must(not self.refused, f"refused: {dict(self.refused)}")
        await until(self._all_metered, SETTLED_S, f"{len(self.tasks)} tasks are metered, not {self._metered()}")
        twice = [t for t in self.tasks if len(self._caller.usage.all("request_id", value=t)) > 1]
        must(not twice, f"{len(twice)} tasks were metered twice: {twice[:5]}")

    def _all_metered(self) -> bool:
        return self._metered() >= len(self.tasks)

    def _metered(self) -> int:
        return len(self._caller.usage.values("request_id") & self.tasks)

    def seen(self) -> str:
        """What came of it."""
        again = f", {self.again} sent again" if self.again else ""
        again += f", {self.put_off} put off as unavailable and answered later" if self.put_off else ""
        return (
            f"{self.sent} requests, 0 lost{again}, {len(self.tasks)} tasks metered once, "
            f"{len(self.pods)} pods answered, slowest {self.slowest_ms:.0f} ms"
        )
