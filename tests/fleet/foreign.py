"""A caller and a worker whom nobody here wrote: plain nats-py, subjects and JSON are all that they know."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import orjson
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy

from tests.fleet.harness import Fleet, until
from tests.nats_client import connect

DECIDE = "beamline.router.v1.decide"
GET_DECISION = "beamline.router.v1.get_decision"
BACKPRESSURE = "beamline.router.v1.status.backpressure"
ASSIGN = "caf.exec.assign.v1"
ASSIGNED = "caf.exec.assigned.v1"
ACK = "caf.exec.assign.v1.ack"
RESULT = "caf.exec.result.v1"
USAGE = "beamline.usage.v1.metered"
ALERTS = "beamline.alert.v1.*"
ANSWER_S = 5.0

Body = dict[str, Any]


class Reply(Struct, frozen=True):
    """What came back."""

    data: bytes
    headers: Mapping[str, str]

    @property
    def body(self) -> Body:
        """The JSON in it."""
        return dict(orjson.loads(self.data))

    @property
    def ok(self) -> bool:
        """Whether it is a decision."""
        return self.body["ok"] is True

    @property
    def decision(self) -> Body:
        """The decision; fails on a refusal."""
        assert self.ok, self.body
        return dict(self.body["decision"])

    @property
    def error(self) -> Body:
        """The refusal; fails on a decision."""
        assert not self.ok, self.body
        return dict(self.body["error"])

    @property
    def context(self) -> Body:
        """Whose it is."""
        return dict(self.body["context"])

    @property
    def pod(self) -> str:
        """Who answered."""
        return self.headers["router-pod"]


class Watch:
    """What a stream holds and gets, as it comes."""

    def __init__(self) -> None:
        self.seen: list[Body] = []
        self.headers: list[Mapping[str, str]] = []
        self._changed = asyncio.Condition()

    async def arrived(self, message: Msg) -> None:
        """The subscription's callback."""
        async with self._changed:
            self.seen.append(orjson.loads(message.data))
            self.headers.append(message.headers or {})
            self._changed.notify_all()

    def where(self, **fields: Any) -> list[Body]:
        """What has come so far with these values."""
        return [x for x in self.seen if all(x.get(k) == v for k, v in fields.items())]

    async def one(self, within_s: float = 10.0, **fields: Any) -> Body:
        """The first with these values."""
        return (await self.many(1, within_s, **fields))[0]

    async def many(self, count: int, within_s: float = 10.0, **fields: Any) -> list[Body]:
        """At least so many with these values."""
        return await self.until(lambda x: all(x.get(k) == v for k, v in fields.items()), count, within_s)

    async def until(self, fits: Callable[[Body], bool], count: int = 1, within_s: float = 10.0) -> list[Body]:
        """At least so many that fit."""
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: sum(map(fits, self.seen)) >= count)
        except TimeoutError:
            raise AssertionError(f"{count} were to come, there are {self.seen[-5:]} of {len(self.seen)}") from None
        return [x for x in self.seen if fits(x)]


class Foreign:
    """`async with Foreign(url) as caller`. Every reply is kept by its request, so that none may come twice unseen."""

    def __init__(self, url: str, inbox_prefix: str = "_INBOX") -> None:
        self._url = url
        self._inbox_prefix = inbox_prefix
        self._numbers = itertools.count()
        self.replies: dict[str, list[Reply]] = {}
        self._waiting: dict[str, asyncio.Future[Reply]] = {}

    async def __aenter__(self) -> Self:
        self.client: Client = await connect(
            self._url,
            error_cb=_quiet,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,
            inbox_prefix=self._inbox_prefix.encode(),
        )
        self._inbox = self.client.new_inbox()
        await self.client.subscribe(f"{self._inbox}.*", cb=self._replied)
        await self.client.flush()
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.client.close()

    async def _replied(self, message: Msg) -> None:
        reply = Reply(message.data, message.headers or {})
        self.replies.setdefault(message.subject, []).append(reply)
        future = self._waiting.pop(message.subject, None)
        if future is not None and not future.done():
            future.set_result(reply)

    async def send(
        self, data: bytes, headers: Mapping[str, str] | None = None, subject: str = DECIDE
    ) -> asyncio.Future[Reply]:
        """Ask; the reply is yet to come."""
        inbox = f"{self._inbox}.{next(self._numbers)}"
        future = self._waiting[inbox] = asyncio.get_running_loop().create_future()
        await self.client.publish(subject, data, reply=inbox, headers=dict(headers) if headers else None)
        return future

    async def raw(
        self, data: bytes, headers: Mapping[str, str] | None = None, subject: str = DECIDE, within_s: float = ANSWER_S
    ) -> Reply:
        """Ask with these bytes."""
        return await asyncio.wait_for(await self.send(data, headers, subject), within_s)

    async def ask(
        self, body: Body, headers: Mapping[str, str] | None = None, subject: str = DECIDE, within_s: float = ANSWER_S
    ) -> Reply:
        """Ask with this JSON."""
        return await self.raw(orjson.dumps(body), headers, subject, within_s)

    async def all(self, bodies: list[Body]) -> list[Reply]:
        """Ask all at once."""
        futures = [await self.send(orjson.dumps(b)) for b in bodies]
        return list(await asyncio.wait_for(asyncio.gather(*futures), 30))

    def doubles(self) -> int:
        """Requests that have had more than one reply."""
        return sum(len(r) > 1 for r in self.replies.values())

    def contradicted(self) -> int:
        """Requests that have had replies which are not the same."""
        return sum(len({reply.data for reply in replies}) > 1 for replies in self.replies.values())

    async def watch(self, subject: str, deliver: DeliverPolicy = DeliverPolicy.ALL) -> Watch:
        """Everything that a stream has and gets under this subject."""
        watch = Watch()
        js = self.client.jetstream()
        await js.subscribe(subject, cb=watch.arrived, ordered_consumer=True, deliver_policy=deliver)
        return watch

    async def core(self, subject: str) -> Watch:
        """Everything that is published under this subject from now on."""
        watch = Watch()
        await self.client.subscribe(subject, cb=watch.arrived)
        await self.client.flush()
        return watch

    async def tell(self, subject: str, body: Body, headers: Mapping[str, str] | None = None) -> None:
        """Publish without asking, as workers do."""
        await self.client.publish(subject, orjson.dumps(body), headers=dict(headers) if headers else None)


class Worker:
    """Takes assignments by a plain subscription, as existing workers do, and reports by a plain publish."""

    def __init__(self, caller: Foreign, answer: Callable[[Body], Body | None] | None = None) -> None:
        self._caller = caller
        self._answer = answer or success
        self.taken: list[Body] = []
        self.successes: set[str] = set()

    async def start(self, subject: str = ASSIGN) -> Self:
        """Subscribe."""
        await self._caller.client.subscribe(subject, cb=self._work)
        await self._caller.client.flush()
        return self

    async def _work(self, message: Msg) -> None:
        assignment = orjson.loads(message.data)
        repeated = any(a["assignment_id"] == assignment["assignment_id"] for a in self.taken[-4096:])
        self.taken.append(assignment)
        result = None if repeated else self._answer(assignment)
        if result is not None:
            if result["status"] == "success":
                self.successes.add(assignment["task_id"])
            await self._caller.tell(RESULT, result)


async def restart_nats(fleet: Fleet, caller: Foreign) -> None:
    """kill -9 and start NATS: pods and caller connect again."""
    await asyncio.to_thread(fleet.nats.kill)
    await until(lambda: not caller.client.is_connected, 5, "the caller notices")
    await asyncio.to_thread(fleet.nats.start)
    await until(lambda: caller.client.is_connected, 10, "the caller is back")


def success(assignment: Body, **more: Any) -> Body:
    """A result in the bare form."""
    return {
        "version": "1",
        "assignment_id": assignment["assignment_id"],
        "request_id": assignment["request_id"],
        "status": "success",
        "provider_id": assignment["executor"]["provider_id"],
        "job": {"type": assignment["job"]["type"]},
        "latency_ms": 12,
        "cost": 0.003,
    } | more


_count = itertools.count()


def task(tenant: str, request_id: str | None = None, **more: Any) -> Body:
    """A request in the task shape."""
    return {
        "version": "1",
        "tenant_id": tenant,
        "request_id": request_id or f"request-{next(_count)}",
        "task": {"type": "chat", "payload": {"text": "hello"}},
    } | more


async def _quiet(_: Exception) -> None:
    """Faults of the connection show as requests without an answer."""
