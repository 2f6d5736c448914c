"""A caller of the fleet that knows nothing but subjects and JSON, over one NATS connection."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import nats
import nats.errors
import orjson
from msgspec import Struct
from nats.js.api import DeliverPolicy

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

DECIDE = "beamline.router.v1.decide"
ASSIGN = "caf.exec.assign.v1"
RESULT = "caf.exec.result.v1"
USAGE = "beamline.usage.v1.metered"

REPLY_S = 5.0
PUT_OFF = ("unavailable", "service_overloaded")


class Reply(Struct, frozen=True):
    """A decide reply: its body, the pod that gave it, and how long it took."""

    body: dict[str, Any]
    pod: str
    ms: float

    @property
    def ok(self) -> bool:
        """Whether it is a decision."""
        return self.body.get("ok") is True

    @property
    def decision(self) -> dict[str, Any]:
        """The decision; empty in a refusal."""
        return dict(self.body.get("decision") or {})

    @property
    def context(self) -> dict[str, Any]:
        """The `context` of the reply."""
        return dict(self.body.get("context") or {})

    @property
    def error(self) -> dict[str, Any]:
        """The refusal; empty in a decision."""
        return dict(self.body.get("error") or {})


async def patiently(ask: Callable[[], Awaitable[Reply]], within_s: float = REPLY_S) -> Reply:
    """Repeat the same request, after the time that the reply names, until the reply is final.

    Returns the last reply when the time is over.
    """
    give_up = time.monotonic() + within_s
    while True:
        reply = await ask()
        if reply.error.get("code") not in PUT_OFF or time.monotonic() >= give_up:
            return reply
        await asyncio.sleep((reply.error.get("details") or {}).get("retry_after_ms", 100) / 1000)


class Seen(Struct, frozen=True):
    """An event from a stream, and its time of arrival (monotonic seconds)."""

    body: dict[str, Any]
    at: float


class Watch:
    """The events that enter one stream from now on. Callers wait for an event by the value of a field."""

    def __init__(self) -> None:
        self._seen: list[Seen] = []
        self._changed = asyncio.Condition()

    async def arrived(self, message: "Msg") -> None:
        """The subscription's callback."""
        async with self._changed:
            self._seen.append(Seen(orjson.loads(message.data), time.monotonic()))
            self._changed.notify_all()

    def all(self, field: str, *, value: str) -> list[Seen]:
        """The events so far that have this value in this field."""
        return [s for s in self._seen if s.body.get(field) == value]

    def values(self, field: str) -> set[str]:
        """The values of this field so far."""
        return {str(s.body.get(field)) for s in self._seen}

    async def first(self, field: str, *, value: str, within_s: float) -> Seen | None:
        """The first event with this value in this field; None when there is none in time."""
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: self.all(field, value=value))
        except TimeoutError:
            return None
        return self.all(field, value=value)[0]


class Caller:
    """`async with Caller(url) as caller`: connected, and watching the streams of assignments, results and usage."""

    def __init__(self, nats_url: str) -> None:
        self._url = nats_url
        self.assignments = Watch()
        self.results = Watch()
        self.usage = Watch()

    async def __aenter__(self) -> Self:
        self._client: Client = await nats.connect(self._url, name="router-proof", error_cb=_quiet)
        js = self._client.jetstream()
        for subject, watch in ((ASSIGN, self.assignments), (RESULT, self.results), (USAGE, self.usage)):
            await js.subscribe(subject, cb=watch.arrived, ordered_consumer=True, deliver_policy=DeliverPolicy.NEW)
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._client.close()

    async def workers_wait(self, within_s: float) -> bool:
        """Whether a worker asks stream ASSIGN for work within the time. Waiting here keeps its start-up out of the
        steps' latencies.
        """
        js = self._client.jetstream()
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            info = await js.consumer_info("ASSIGN", "workers")
            if info.num_waiting:
                return True
            await asyncio.sleep(0.02)
        return False

    async def decide(self, body: dict[str, Any]) -> Reply:
        """Send a request; every request has exactly one reply.

        :raises nats.errors.Error: no pod answered in time.
        """
        started = time.monotonic()
        message = await self._client.request(DECIDE, orjson.dumps(body), timeout=REPLY_S)
        ms = (time.monotonic() - started) * 1000
        return Reply(orjson.loads(message.data), (message.headers or {}).get("router-pod", "?"), ms)

    async def inbox(self, arrived: Callable[[dict[str, Any]], None]) -> str:
        """A subject for final results; `arrived` gets each."""

        async def deliver(message: "Msg") -> None:
            arrived(orjson.loads(message.data))

        subject = self._client.new_inbox()
        await self._client.subscribe(subject, cb=deliver)
        return subject


async def _quiet(_: Exception) -> None:
    """Ignore errors of the connection: they show as requests without an answer. nats-py would print them."""
