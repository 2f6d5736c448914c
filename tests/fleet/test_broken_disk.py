"""A NATS whose writes fail: the stream stays broken until the server is restarted, and the fleet says so."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.conftest import Own
from tests.fleet.foreign import ALERTS, USAGE, Foreign, Worker, task
from tests.fleet.harness import PLAIN, Fleet, Pod, until
from tests.servers import IN_CONTAINERS, NatsProcess

ACME = {"acme": {"default": PLAIN}}
PROBE = "caf.exec.result.v1.tenant.~probe"
LIMIT_KIB = 2048


class SmallFiles(NatsProcess):
    """No file may be larger than `limit_kib`: a block of a stream that grows beyond it is a failed write."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.limit_kib: int | None = LIMIT_KIB

    def command(self) -> list[str]:
        """The server under a shell's limit."""
        words = super().command()
        return (
            words if self.limit_kib is None else ["bash", "-c", f'ulimit -f {self.limit_kib}; exec "$@"', "-", *words]
        )


pytestmark = pytest.mark.skipif(IN_CONTAINERS, reason="the limit is a shell's")


def is_off(pod: Pod, parts: set[str], words: str) -> Callable[[], Any]:
    """Whether a ready pod has these parts off for this reason."""

    async def look() -> bool:
        status, body = await pod.readyz()
        return status == 200 and {p for p, r in body["degraded_reasons"].items() if words in r} >= parts

    return look


async def whole(pod: Pod) -> bool:
    """Whether nothing is off."""
    status, body = await pod.readyz()
    return status == 200 and not body["degraded"]


async def break_writes(caller: Foreign, subject: str) -> None:
    """Fill a block of the stream until a write fails."""
    for _ in range(8):
        await caller.client.publish(subject, bytes(500_000))
    await caller.client.flush()


async def restarted(fleet: Fleet, caller: Foreign) -> None:
    """What the runbook says: make room, restart that server."""
    nats = fleet.nats
    assert isinstance(nats, SmallFiles)
    await asyncio.to_thread(nats.stop)
    nats.limit_kib = None
    await asyncio.to_thread(nats.start)
    await until(lambda: caller.client.is_connected, 20, "the caller is back")


async def test_results_that_their_stream_does_not_store(own: Own, tmp_path: Path) -> None:
    """A worker reports that it cannot publish: the pod finds out, refuses pushes, and an alert says what to do. After
    the restart tasks go the whole way again."""
    fleet, caller = await own(pods=1, policies=ACME, nats=SmallFiles(tmp_path / "nats"))
    (pod,) = fleet.pods
    alerts = await caller.watch(ALERTS)
    await break_writes(caller, PROBE)
    assert await whole(pod)
    letter = {"version": "v1", "kind": "dead_letter", "data": {"reason": "PUBLISH_ERROR", "payload_ref": "a1", "ts": 1}}
    await caller.tell("caf.deadletter.v1", letter)
    words = "stream RESULT does not store messages: no ack; if NATS logs a critical write error"
    await until(is_off(pod, {"results", "dispatch"}, words), 30, "it is found out")
    assert "ritical write error" in fleet.nats.log.read_text()
    assert (await caller.ask(task("acme"))).ok
    assert words in (await caller.ask(task("acme", push_assignment=True))).error["message"]
    (raised, *_) = await alerts.until(lambda a: a["metadata"].get("stream") == "RESULT", 1, 30)
    assert raised["severity"] == "critical"
    assert words in raised["message"]
    await restarted(fleet, caller)
    await until(lambda: whole(pod), 30, "a probe is stored")
    async with Foreign(fleet.nats.url) as other:
        await Worker(other).start()
        usage = await other.watch(USAGE)
        reply = await caller.ask(task("acme", push_assignment=True))
        await usage.one(assignment_id=reply.context["assignment_id"])
    assert await fleet.total("router_results_refused_total") == 0
    assert await fleet.total("router_dead_letters_total") == 1


async def test_usage_that_its_stream_does_not_store(own: Own, tmp_path: Path) -> None:
    """It waits in Redis while tasks go on, the part is off by name, and after the restart it is metered once."""
    fleet, caller = await own(pods=1, policies=ACME, nats=SmallFiles(tmp_path / "nats"))
    (pod,) = fleet.pods
    await break_writes(caller, USAGE)
    async with Foreign(fleet.nats.url) as other:
        worker = await Worker(other).start()
        replies = [await caller.ask(task("acme", push_assignment=True)) for _ in range(5)]
        await until(lambda: len(worker.successes) == 5, 20, "the tasks are done")
    await until(is_off(pod, {"usage"}, "stream USAGE does not store messages: no ack"), 20, "it is found out")
    assert await fleet.outbox() == 5
    await restarted(fleet, caller)

    async def published() -> bool:
        return bool(await fleet.outbox() == 0)

    await until(published, 60, "usage is published")
    await until(lambda: whole(pod), 30, "nothing is off")
    js = caller.client.jetstream()
    stored = [await js.get_msg("USAGE", seq) for seq in range(1, (await js.stream_info("USAGE")).state.last_seq + 1)]
    ids = [m.headers["Nats-Msg-Id"] for m in stored if m.headers]
    assert len(ids) == len(set(ids)) == 5
    assert all(r.ok for r in replies)


async def test_two_pods_find_streams_deleted(own: Own) -> None:
    """Both may create them: there is one of each, no error in a log, and tasks go the whole way."""
    fleet, caller = await own(pods=2, policies=ACME)
    js = caller.client.jetstream()
    for name in ("RESULT", "ASSIGN", "USAGE", "ACK"):
        await js.delete_stream(name)

    async def back() -> bool:
        names = {s.config.name for s in await js.streams_info()}
        return {"RESULT", "ASSIGN", "USAGE", "ACK"} <= names

    async with Foreign(fleet.nats.url) as other:
        worker = await Worker(other).start()
        await caller.all([task("acme", push_assignment=True) for _ in range(20)])
        await until(back, 40, "the streams are back")
        usage = await caller.watch(USAGE)

        async def goes() -> bool:
            return bool((await caller.ask(task("acme", push_assignment=True))).ok)

        await until(goes, 40, "pushes are admitted")
        await until(lambda: worker.taken, 20, "a task is executed")
        await usage.one(within_s=30)
    for pod in fleet.pods:
        await until(lambda pod=pod: whole(pod), 30, "nothing is off")  # type: ignore[misc]
        assert '"level":"error"' not in pod.log.read_text()
