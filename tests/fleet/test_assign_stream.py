"""Work items in their stream: how long they stay, and who gets which."""

import time
from math import ceil
from typing import Any

from nats.js.api import ConsumerConfig

from tests.fleet.conftest import Own
from tests.fleet.foreign import ASSIGN, task
from tests.fleet.harness import PLAIN, until

ACME = {"acme": {"default": PLAIN}}


async def test_an_assignment_leaves_its_stream_a_minute_after_its_deadline(own: Own) -> None:
    """A new stream lets messages expire one by one; `Nats-TTL` is the rest of the deadline, rounded up, and 60 s. NATS
    before 2.11 knows no such header: there the work items stay for the stream's maximum age."""
    _, caller = await own(pods=1, policies=ACME)
    server = caller.client.connected_server_version
    work = await caller.watch(ASSIGN)
    for deadline_ms in (5_000, 7_001, 60_000):
        options, began = {"deadline_ms": deadline_ms}, time.monotonic()
        reply = await caller.ask(task("acme", push_assignment=True, options=options))
        await work.one(assignment_id=reply.context["assignment_id"])
        passed_ms = 1000 * (time.monotonic() - began)
        if (server.major, server.minor) < (2, 11):
            assert "Nats-TTL" not in work.headers[-1]
            continue
        ttl_s = int(work.headers[-1]["Nats-TTL"].removesuffix("s")) - 60
        assert ceil((deadline_ms - passed_ms) / 1000) <= ttl_s <= ceil(deadline_ms / 1000)


async def test_workers_get_the_subjects_of_the_filter_only(own: Own) -> None:
    """A consumer of one's own takes the other subject: each task is delivered once."""
    env = {"ROUTER_ASSIGN_SUBJECTS": "caf.exec.gpu", "ROUTER_STREAM_ASSIGN_FILTER": ASSIGN}
    fleet, caller = await own(pods=1, policies=ACME, env=env)
    js = caller.client.jetstream()
    await js.add_consumer("ASSIGN", ConsumerConfig(durable_name="gpu", filter_subject="caf.exec.gpu"))
    for subject in (ASSIGN, "caf.exec.gpu"):
        assert (await caller.ask(task("acme", push_assignment=True, assignment_subject=subject))).ok

    async def both() -> Any:
        return (await js.stream_info("ASSIGN")).state.messages == 2

    await until(both, 10, "both are stored")
    for consumer, subject in (("workers", ASSIGN), ("gpu", "caf.exec.gpu")):
        subscription = await js.pull_subscribe_bind(consumer=consumer, stream="ASSIGN")
        assert [m.subject for m in await subscription.fetch(5, timeout=1)] == [subject]
    assert (await fleet.pods[0].metrics())["router_stream_differences"] == 0


async def test_a_filter_that_is_set_later_is_a_difference_with_its_command(own: Own) -> None:
    """The consumer stays as it is, because somebody may rely on it; the log has the command."""
    fleet, _ = await own(pods=1, policies=ACME)
    pod = fleet.pod(ROUTER_STREAM_ASSIGN_FILTER=ASSIGN)
    await pod.start()
    (line,) = [x["message"] for x in pod.logged("stream.differs")]
    assert line.endswith(f"fix: nats consumer edit ASSIGN workers --filter={ASSIGN}")
