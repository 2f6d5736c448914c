"""The worker's loop against a real NATS."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, StreamConfig

from router.domain.json import JsonObject
from router.worker.worker import Options, Worker
from tests.servers import NatsProcess


class Desk:
    """A router's side: hands out assignments and collects what comes back."""

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.js = client.jetstream()
        self.url = url
        self.results: asyncio.Queue[JsonObject] = asyncio.Queue()

    async def open(self) -> None:
        """Streams and the consumer as pods make them, and an ear on the results."""
        await self.js.add_stream(StreamConfig(name="ASSIGN", subjects=["caf.exec.assign.v1"]))
        await self.js.add_stream(StreamConfig(name="RESULT", subjects=["caf.exec.result.v1"]))
        await self.js.add_consumer("ASSIGN", ConsumerConfig(durable_name="workers", ack_wait=30))

        async def arrived(message: Msg) -> None:
            await self.results.put(orjson.loads(message.data))

        await self.client.subscribe("caf.exec.result.v1", cb=arrived)

    async def assign(self, assignment_id: str, task: str, payload: JsonObject, msg_id: str | None = None) -> None:
        """One assignment; the server's own duplicate check is passed by with another `msg_id`."""
        body = {
            "version": "1",
            "assignment_id": assignment_id,
            "request_id": f"r-{assignment_id}",
            "tenant_id": "acme",
            "executor": {"provider_id": "p1", "channel": "nats"},
            "job": {"type": task, "payload": payload},
            "decision": {"expected_cost": 0.25},
        }
        headers = {"Nats-Msg-Id": msg_id or assignment_id}
        await self.js.publish("caf.exec.assign.v1", orjson.dumps(body), headers=headers)

    async def result(self) -> JsonObject:
        """The next result."""
        return await asyncio.wait_for(self.results.get(), 10)

    async def unfinished(self) -> int:
        """How many assignments were not acknowledged yet."""
        info = await self.js.consumer_info("ASSIGN", "workers")
        return (info.num_ack_pending or 0) + (info.num_pending or 0)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A NATS of its own: the worker's stream has a fixed name."""
    server = NatsProcess(tmp_path)
    await asyncio.to_thread(server.start)
    client = await nats.connect(server.url)
    desk = Desk(client, server.url)
    await desk.open()
    yield desk
    await client.close()
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def worker(desk: Desk) -> AsyncIterator[tuple[Worker, asyncio.Task[None]]]:
    """A running worker; stopped at the end whatever happened."""
    worker = Worker(Options((desk.url,), "w1", concurrency=4))
    running = asyncio.create_task(worker.run())
    yield worker, running
    worker.stop()
    await asyncio.wait_for(running, 10)


Running = tuple[Worker, asyncio.Task[None]]


async def test_a_result_says_who_ran_what(desk: Desk, worker: Running) -> None:
    """A result carries the ids, the provider, the job type, the cost and the output."""
    await desk.assign("a1", "echo", {"x": 1})
    result = await desk.result()
    latency, stamp = result.pop("latency_ms"), result.pop("timestamp")
    assert isinstance(latency, int)
    assert isinstance(stamp, int)
    assert result == {
        "version": "1",
        "assignment_id": "a1",
        "request_id": "r-a1",
        "tenant_id": "acme",
        "status": "success",
        "provider_id": "p1",
        "job": {"type": "echo"},
        "cost": 0.25,
        "output": {"x": 1},
    }


async def test_acceptance_comes_before_the_result(desk: Desk, worker: Running) -> None:
    """The router hears that a worker has the task."""
    accepted: asyncio.Queue[bytes] = asyncio.Queue()

    async def heard(message: Msg) -> None:
        await accepted.put(message.data)

    await desk.client.subscribe("caf.exec.assign.v1.ack", cb=heard)
    await desk.client.flush()
    await desk.assign("a2", "echo", {})
    ack = orjson.loads(await asyncio.wait_for(accepted.get(), 10))
    assert ack == {"assignment_id": "a2", "status": "accepted", "request_id": "r-a2", "tenant_id": "acme"}


async def test_an_assignment_id_runs_once(desk: Desk, worker: Running) -> None:
    """A second delivery of an assignment_id is not run again."""
    await desk.assign("a3", "echo", {"n": 1}, msg_id="one")
    assert (await desk.result())["assignment_id"] == "a3"
    await desk.assign("a3", "echo", {"n": 2}, msg_id="two")
    await desk.assign("a4", "echo", {})
    assert (await desk.result())["assignment_id"] == "a4"


async def test_garbage_is_dead_lettered_and_the_worker_lives_on(desk: Desk, worker: Running) -> None:
    """What is no assignment goes to the dead letters by reference; the next assignment is served."""
    letters: asyncio.Queue[bytes] = asyncio.Queue()

    async def heard(message: Msg) -> None:
        await letters.put(message.data)

    await desk.client.subscribe("caf.deadletter.v1", cb=heard)
    await desk.client.flush()
    await desk.js.publish("caf.exec.assign.v1", b'{"version":"1"}')
    letter = orjson.loads(await asyncio.wait_for(letters.get(), 10))
    assert (letter["kind"], letter["data"]["reason"]) == ("dead_letter", "DECODE_ERROR")
    await desk.assign("a5", "echo", {})
    assert (await desk.result())["assignment_id"] == "a5"


async def test_a_drain_finishes_what_runs(desk: Desk, worker: Running) -> None:
    """Stopping waits for the running task, reports it, and leaves nothing unacknowledged."""
    accepted = asyncio.Event()

    async def heard(_: Msg) -> None:
        accepted.set()

    await desk.client.subscribe("caf.exec.assign.v1.ack", cb=heard)
    await desk.client.flush()
    await desk.assign("a6", "sleep", {"ms": 300})
    await asyncio.wait_for(accepted.wait(), 10)
    worker[0].stop()
    assert (await desk.result())["status"] == "success"
    await asyncio.wait_for(worker[1], 10)
    assert await desk.unfinished() == 0


async def test_what_is_not_done_in_time_is_given_back(desk: Desk) -> None:
    """A task that outlasts the drain goes to the next worker at once."""
    first = Worker(Options((desk.url,), "w1", drain_s=0.05))
    running = asyncio.create_task(first.run())
    accepted: asyncio.Queue[bytes] = asyncio.Queue()

    async def heard(message: Msg) -> None:
        await accepted.put(message.data)

    await desk.client.subscribe("caf.exec.assign.v1.ack", cb=heard)
    await desk.client.flush()
    await desk.assign("a7", "sleep", {"ms": 1500})
    await asyncio.wait_for(accepted.get(), 10)
    first.stop()
    await asyncio.wait_for(running, 10)
    second = Worker(Options((desk.url,), "w2"))
    running = asyncio.create_task(second.run())
    assert (await desk.result())["status"] == "success"
    second.stop()
    await asyncio.wait_for(running, 10)
