"""The worker's loop against a real NATS."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import nats
import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, StreamConfig

from router.domain.json import JsonObject, JsonValue
from router.worker import Done, Failed, Job, Rejected, Worker, assignments
from router.worker.tasks import register
from tests.fleet.harness import until
from tests.nats_client import connect
from tests.servers import NatsProcess

pytestmark = pytest.mark.usefixtures("servers")


class Desk:
    """A router's side: hands out assignments and collects what comes back."""

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.js = client.jetstream()
        self.url = url
        self.results: asyncio.Queue[JsonObject] = asyncio.Queue()
        self.acks: asyncio.Queue[JsonObject] = asyncio.Queue()

    async def open(self) -> None:
        """Streams and the consumer as pods make them, and an ear on the results."""
        await self.js.add_stream(StreamConfig(name="ASSIGN", subjects=["caf.exec.assign.v1"]))
        await self.js.add_stream(StreamConfig(name="RESULT", subjects=["caf.exec.result.v1"]))
        await self.js.add_consumer("ASSIGN", ConsumerConfig(durable_name="workers", ack_wait=30))

        async def arrived(message: Msg) -> None:
            await self.results.put(orjson.loads(message.data))

        async def answered(message: Msg) -> None:
            await self.acks.put(orjson.loads(message.data))

        await self.client.subscribe("caf.exec.result.v1", cb=arrived)
        await self.client.subscribe("caf.exec.assign.v1.ack", cb=answered)

    async def assign(
        self, assignment_id: str, task: str, payload: JsonObject, msg_id: str | None = None, **more: JsonValue
    ) -> None:
        """One assignment; the server's own duplicate check is passed by with another `msg_id`."""
        body: JsonObject = {
            **more,
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

    async def receipt(self, status: str) -> JsonObject:
        """The next ack of this status."""
        async with asyncio.timeout(10):
            while True:
                found = await self.acks.get()
                if found["status"] == status:
                    return found

    async def unfinished(self) -> int:
        """How many assignments were not acknowledged yet."""
        info = await self.js.consumer_info("ASSIGN", "workers")
        return (info.num_ack_pending or 0) + (info.num_pending or 0)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A NATS of its own: the worker's stream has a fixed name."""
    server = NatsProcess(tmp_path)
    await asyncio.to_thread(server.start)
    client = await connect(server.url)
    desk = Desk(client, server.url)
    await desk.open()
    yield desk
    await client.close()
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def worker(desk: Desk) -> AsyncIterator[tuple[Worker, asyncio.Task[None]]]:
    """A running worker; stopped at the end whatever happened."""
    worker = example(desk, "w1", concurrency=4)
    running = asyncio.create_task(worker.run())
    yield worker, running
    worker.stop()
    await asyncio.wait_for(running, 10)


def example(desk: Desk, name: str, **options: Any) -> Worker:
    """The worker that `router worker` runs."""
    made = Worker(desk.url, name=name, **options)
    register(made, {})
    return made


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


@pytest.mark.parametrize("late_ms", [0, 1, 60_000, 3_600_000])
async def test_an_assignment_past_its_deadline_is_not_begun(
    desk: Desk, late_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that comes late gets the stream from its beginning: ended tasks are taken off it, without a word to the
    router, and those that are not over are run. The log has one line, with what this host's clock says: it may be
    wrong."""
    now_ms = time.time_ns() // 1_000_000
    for number in range(5):
        await desk.assign(f"old-{number}", "echo", {}, deadline_at_ms=now_ms - late_ms)
    await desk.assign("new", "echo", {}, deadline_at_ms=now_ms + 60_000)
    late = example(desk, "late", concurrency=4)
    running = asyncio.create_task(late.run())
    try:
        assert (await desk.result())["assignment_id"] == "new"
        await until(lambda: until_zero(desk), 10, "all are taken off")
    finally:
        late.stop()
        await asyncio.wait_for(running, 10)
    assert desk.results.empty()
    assert {(await desk.acks.get())["assignment_id"] for _ in range(desk.acks.qsize())} == {"new"}
    (line,) = [r.getMessage() for r in caplog.records if "not begun" in r.getMessage()]
    said = re.search(r"passed ([\d.]+) s ago by this clock", line)
    assert said is not None
    assert late_ms / 1000 - 0.1 <= float(said[1]) <= late_ms / 1000 + 60


async def test_a_stream_of_another_name_is_served(desk: Desk) -> None:
    """`stream` names it, as ROUTER_STREAM_ASSIGN_NAME does for pods; `js_prefix` the way to JetStream."""
    await desk.js.delete_stream("ASSIGN")
    await desk.js.add_stream(StreamConfig(name="WORK", subjects=["caf.exec.assign.v1"]))
    await desk.js.add_consumer("WORK", ConsumerConfig(durable_name="workers", ack_wait=30))
    made = example(desk, "w1", stream="WORK", js_prefix="$JS.API")
    running = asyncio.create_task(made.run())
    try:
        await desk.assign("a1", "echo", {})
        assert (await desk.result())["assignment_id"] == "a1"
    finally:
        made.stop()
        await asyncio.wait_for(running, 10)


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
    first = example(desk, "w1", drain_s=0.05)
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
    second = example(desk, "w2")
    running = asyncio.create_task(second.run())
    assert (await desk.result())["status"] == "success"
    second.stop()
    await asyncio.wait_for(running, 10)


class Text(msgspec.Struct):
    """What the handler below wants."""

    text: str


@pytest.fixture
async def own(desk: Desk) -> AsyncIterator[Worker]:
    """A worker with handlers of its own, running."""
    worker = Worker(desk.url, name="own", concurrency=2)

    @worker.job("typed", Text)
    async def typed(job: Job[Text]) -> object:
        return {"text": job.payload.text, "tenant": job.tenant_id, "task": job.task_id, "attempt": job.attempt}

    @worker.job("figures")
    async def figures(_: Job[JsonObject]) -> Done:
        return Done("made", cost=0.5, tokens=7)

    @worker.job("failing")
    async def failing(_: Job[JsonObject]) -> None:
        raise Failed("HTTP_503", "busy", cost=0.1)

    @worker.job("rejecting")
    async def rejecting(_: Job[JsonObject]) -> None:
        raise Rejected("not today")

    @worker.job("buggy")
    async def buggy(_: Job[JsonObject]) -> None:
        raise ZeroDivisionError("oh")

    running = asyncio.create_task(worker.run())
    yield worker
    worker.stop()
    await asyncio.wait_for(running, 10)


async def test_a_payload_comes_as_its_type(desk: Desk, own: Worker) -> None:
    """Decoded, with what the handler may want to know of the task."""
    await desk.assign("b1", "typed", {"text": "hi", "other": 1})
    assert (await desk.result())["output"] == {"text": "hi", "tenant": "acme", "task": "b1", "attempt": 1}


async def test_a_payload_that_does_not_fit_is_an_error_that_names_the_field(desk: Desk, own: Worker) -> None:
    """The task's fault, not the worker's."""
    await desk.assign("b2", "typed", {"text": 5})
    result = await desk.result()
    assert (result["status"], result["error_code"]) == ("error", "BAD_PAYLOAD")
    assert "$.text" in str(result["error_message"])


async def test_figures_are_reported(desk: Desk, own: Worker) -> None:
    """Cost and tokens of `Done`."""
    await desk.assign("b3", "figures", {})
    result = await desk.result()
    assert (result["output"], result["cost"], result["tokens"]) == ("made", 0.5, 7)


async def test_a_failure_is_told_with_its_code(desk: Desk, own: Worker) -> None:
    """As the handler raised it."""
    await desk.assign("b4", "failing", {})
    result = await desk.result()
    told = {k: result[k] for k in ("status", "error_code", "error_message", "cost")}
    assert told == {"status": "error", "error_code": "HTTP_503", "error_message": "busy", "cost": 0.1}


@pytest.mark.parametrize(("job_type", "why"), [("rejecting", "not today"), ("dance", "this worker runs buggy")])
async def test_what_a_worker_will_not_do_is_rejected(desk: Desk, own: Worker, job_type: str, why: str) -> None:
    """By the handler, or because there is none: an ack says so, no result comes, and the message is done with."""
    await desk.assign("b5", job_type, {})
    assert str((await desk.receipt("rejected"))["message"]).startswith(why)
    await desk.assign("b6", "figures", {})
    assert (await desk.result())["assignment_id"] == "b6"
    assert await until_zero(desk)


async def until_zero(desk: Desk) -> bool:
    """Whether everything is acknowledged soon."""
    for _ in range(200):
        if await desk.unfinished() == 0:
            return True
    return False


async def test_a_bug_in_a_handler_is_an_error_result(desk: Desk, own: Worker) -> None:
    """The task ends, and the worker lives on."""
    await desk.assign("b7", "buggy", {})
    result = await desk.result()
    assert (result["error_code"], result["error_message"]) == ("WORKER_ERROR", "ZeroDivisionError: oh")


async def test_two_handlers_of_one_type_are_refused() -> None:
    """A typo in a name would hide one of them."""
    worker = Worker("nats://nowhere", name="w")
    worker.job("x")(_nothing)
    with pytest.raises(ValueError, match="'x'"):
        worker.job("x")(_nothing)


async def _nothing(_: Job[JsonObject]) -> None: ...


async def test_workers_that_know_different_types_share_a_stream(desk: Desk) -> None:
    """Whoever is given what it does not know passes it on: all is done, nothing rejected."""
    workers = [Worker(desk.url, name=known) for known in ("cut", "join")]
    for made, known in zip(workers, ("cut", "join"), strict=True):
        made.job(known)(_nothing)
    running = [asyncio.create_task(made.run()) for made in workers]
    for number in range(20):
        await desk.assign(f"e{number}", ("cut", "join")[number % 2], {})
    results = [await desk.result() for _ in range(20)]
    for made in workers:
        made.stop()
    await asyncio.wait_for(asyncio.gather(*running), 10)
    assert {r["assignment_id"] for r in results} == {f"e{number}" for number in range(20)}
    assert {desk.acks.get_nowait()["status"] for _ in range(desk.acks.qsize())} == {"accepted"}


async def test_no_more_run_at_once_than_the_concurrency(desk: Desk) -> None:
    """The others wait in the stream."""
    worker, running, maximum, done = Worker(desk.url, name="w", concurrency=2), 0, 0, asyncio.Event()

    @worker.job("slow")
    async def slow(_: Job[JsonObject]) -> None:
        nonlocal running, maximum
        running += 1
        maximum = max(maximum, running)
        await done.wait()
        running -= 1

    task = asyncio.create_task(worker.run())
    for number in range(5):
        await desk.assign(f"c{number}", "slow", {})
    for _ in range(2):
        await desk.receipt("accepted")
    done.set()
    for _ in range(5):
        await desk.result()
    worker.stop()
    await asyncio.wait_for(task, 10)
    assert maximum == 2


async def test_a_long_job_is_prolonged_and_runs_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the server's ack wait: another worker, who is idle, does not get it meanwhile."""
    monkeypatch.setattr(assignments, "IN_PROGRESS_EVERY_S", 0.2)
    await desk.js.delete_consumer("ASSIGN", "workers")
    await desk.js.add_consumer("ASSIGN", ConsumerConfig(durable_name="workers", ack_wait=0.6))
    busy, idle = example(desk, "w1", concurrency=1), example(desk, "w2")
    tasks = [asyncio.create_task(busy.run())]
    await desk.assign("d1", "sleep", {"ms": 1500})
    await asyncio.wait_for(desk.acks.get(), 5)
    tasks.append(asyncio.create_task(idle.run()))
    assert (await desk.result())["status"] == "success"
    for worker in (busy, idle):
        worker.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert desk.acks.empty()


async def test_a_worker_that_never_reached_nats_can_be_stopped() -> None:
    """It waits for NATS for ever, but not against a SIGTERM."""
    worker = Worker("nats://127.0.0.1:1", name="w")
    task = asyncio.create_task(worker.run())
    worker.stop()
    await asyncio.wait_for(task, 5)


async def test_a_worker_ends_in_order_although_nats_is_away(tmp_path: Path) -> None:
    """Killed before the stop, while a task runs: the drain takes its time and no longer, and nothing is raised."""
    server = NatsProcess(tmp_path)
    await asyncio.to_thread(server.start)
    client = await connect(server.url)
    desk = Desk(client, server.url)
    await desk.open()
    worker = example(desk, "w1", drain_s=0.3)
    running = asyncio.create_task(worker.run())
    await desk.assign("g1", "sleep", {"ms": 60_000})
    await desk.receipt("accepted")
    await client.close()
    await asyncio.to_thread(server.kill)
    worker.stop()
    await asyncio.wait_for(running, 5)


class Failing(Worker):
    """Counts what NATS complains of."""

    failures = 0

    async def _on_nats_error(self, error: Exception) -> None:
        self.failures += 1
        await super()._on_nats_error(error)


async def test_an_outage_of_nats_is_said_once_a_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However often the connection is tried; that it is back is said, too, and the next outage is news."""
    caplog.set_level("INFO", "router.worker.worker")
    server = NatsProcess(tmp_path)
    await asyncio.to_thread(server.start)
    client = await connect(server.url)
    await Desk(client, server.url).open()
    await client.close()
    worker = Failing(server.url, name="w1", connect={"reconnect_time_wait": 0.02})
    running = asyncio.create_task(worker.run())
    for outage in (1, 2):
        connected = lambda outage=outage: caplog.text.count("connected to NATS") == outage  # noqa: E731
        await until(connected, 10, "it is connected")
        before = worker.failures
        await asyncio.to_thread(server.kill)
        await until(lambda before=before: worker.failures > before + 10, 10, "NATS was tried often")  # type: ignore[misc]
        said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert 1 <= len(said) <= 4 * outage, said
        await asyncio.to_thread(server.start)
    worker.stop()
    await asyncio.wait_for(running, 10)
    await asyncio.to_thread(server.stop)


@pytest.mark.parametrize(
    ("verb", "subject"),
    [
        ("publish", "caf.exec.result.v1.tenant.Acme.EU"),
        ("publish", "caf.exec.assign.v1.ack.tenant.Acme.EU"),
        ("publish", "$JS.hub.API.CONSUMER.MSG.NEXT.MyWork.OfAcme"),
        ("publish", "caf.status.heartbeat.v1"),
        ("publish", "some.other.subject"),
        ("subscribe", "_INBOX.Router-Worker.>"),
        ("publish", "$JS.ACK.MyWork.OfAcme.>"),
    ],
)
async def test_a_refused_right_is_named_as_it_is_written(
    caplog: pytest.LogCaptureFixture, verb: str, subject: str
) -> None:
    """nats-py makes the server's words lower case; the log has one line for each subject, with the remedy."""
    worker = Worker(
        "nats://127.0.0.1:1",
        name="w",
        stream="MyWork",
        consumer="OfAcme",
        js_prefix="$JS.hub.API",
        tenant="Acme.EU",
        connect={"inbox_prefix": "_INBOX.Router-Worker"},
    )
    kind = "subscription" if verb == "subscribe" else "publish"
    lower = subject.replace(">", "x").lower()
    for _ in range(3):
        await worker._on_nats_error(nats.errors.Error(f'nats: permissions violation for {kind} to "{lower}"'))
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert line.startswith(f"NATS does not permit this user to {verb} to {subject}: `router acl nats --for worker`")


@pytest.mark.parametrize("tenant", [".acme", "acme.", "a..b", ""])
def test_a_tenant_that_no_subject_can_hold_is_refused(tenant: str) -> None:
    """At once, not with the first result."""
    with pytest.raises(ValueError, match="cannot be part of a subject"):
        Worker("nats://127.0.0.1:1", name="w", tenant=tenant)
