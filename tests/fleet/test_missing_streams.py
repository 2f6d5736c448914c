"""Accounts in which the fleet's streams cannot be: a foreign stream over their subjects, bounds of the account."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import StreamConfig

from tests.fleet.conftest import Own
from tests.fleet.foreign import ALERTS, ASSIGN, Foreign, Worker, restart_nats, task
from tests.fleet.harness import PLAIN, Fleet, Pod, assert_quiet, until
from tests.servers import NatsProcess

ACME = {"acme": {"default": PLAIN}}


def account(limits: str) -> str:
    """A server configuration with one account for everybody, whose JetStream has these limits."""
    return f"accounts {{ A {{ jetstream: {{ {limits} }}, users: [{{user: a, password: a}}] }} }}\nno_auth_user: a"


def says(pod: Pod, *words: str) -> Callable[[], Any]:
    """Whether /readyz is 503 and its reason for the streams holds all these words."""

    async def look() -> bool:
        status, body = await pod.readyz()
        return status == 503 and all(word in body["reasons"].get("streams", "") for word in words)

    return look


def is_degraded(pod: Pod, *words: str) -> Callable[[], Any]:
    """Whether /readyz is 200 with dispatch off and its reason holds all these words."""

    async def look() -> bool:
        status, body = await pod.readyz()
        reason = body.get("degraded_reasons", {}).get("dispatch", "")
        return status == 200 and "dispatch" in body["degraded"] and all(word in reason for word in words)

    return look


async def is_whole(pod: Pod) -> bool:
    """Whether /readyz is 200 with nothing off."""
    status, body = await pod.readyz()
    return status == 200 and body["degraded"] == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ("max_bytes_required: true", ("stream ASSIGN", "max bytes", "ROUTER_STREAM_ASSIGN_MAX_BYTES")),
        ("max_streams: 3", ("stream RESULT", "maximum number of streams")),
        ("max_file: 1MB", ("stream ASSIGN", "insufficient storage")),
    ],
    ids=["max bytes", "too few streams", "no storage"],
)
async def test_an_account_without_room_takes_readiness(own: Own, tmp_path: Path, limits: str, words: Any) -> None:
    """Not ready, with one reason: the stream and the server's words. Decides wait for it, and the log is quiet."""
    nats = NatsProcess(tmp_path / "nats", extra=account(limits))
    env = {"ROUTER_STREAM_ASSIGN_MAX_BYTES": "1GiB"} if "max_file" in limits else {}
    fleet, _ = await own(pods=0, policies=ACME, nats=nats, env=env)
    pod = await fleet.pod().start(wait=False)
    await until(says(pod, *words), 40, "not ready with the reason")
    assert "\n" not in (await pod.readyz())[1]["reasons"]["streams"]
    await assert_quiet(pod)


async def overlapped(own: Own, **env: str) -> tuple[Fleet, Foreign, Any]:
    """No pod yet; a foreign stream over caf.>."""
    fleet, caller = await own(pods=0, policies=ACME, env=env)
    js = caller.client.jetstream()
    await js.add_stream(StreamConfig(name="CAF", subjects=["caf.>"]))
    return fleet, caller, js


async def test_an_overlapping_stream_takes_readiness_until_it_is_gone(own: Own) -> None:
    """The reason names the stream in the way and the setting that accepts it; ready without a restart."""
    fleet, caller, js = await overlapped(own)
    pod = await fleet.pod().start(wait=False)
    await until(says(pod, "stream ASSIGN", "subjects overlap", "CAF", "ROUTER_STREAM_ASSIGN_NAME=CAF"), 40, "reason")
    alerts = await caller.watch(ALERTS)
    await alerts.until(lambda a: "ASSIGN" in a["message"] and a["severity"] == "critical")
    await js.delete_stream("CAF")
    await pod.until_ready()
    await alerts.until(lambda a: a["metadata"].get("resolved") is True and a["metadata"].get("stream") == "ASSIGN")
    async with Foreign(fleet.nats.url) as other:
        worker = await Worker(other).start()
        reply = await caller.ask(task("acme", push_assignment=True))
        assert reply.ok
        await until(lambda: worker.taken, 10, "the task is executed")


async def test_optional_dispatch_is_ready_without_its_streams(own: Own) -> None:
    """Degraded: decides are answered, pushes are refused with the reason, and no worker gets anything."""
    fleet, caller, js = await overlapped(own, ROUTER_DISPATCH="optional")
    pod = await fleet.pod().start()
    assert await is_degraded(pod, "stream ASSIGN", "subjects overlap")()
    assert (await pod.metrics())['router_degraded{part="dispatch"}'] == 1
    async with Foreign(fleet.nats.url) as other:
        worker = await Worker(other).start()
        assert (await caller.ask(task("acme"))).ok
        refused = (await caller.ask(task("acme", push_assignment=True))).error
        assert refused["code"] == "unavailable"
        assert "stream ASSIGN" in refused["message"]
        assert refused["details"]["retry_after_ms"] > 0
        assert worker.taken == []
    await assert_quiet(pod)
    await js.delete_stream("CAF")
    await until(lambda: is_whole(pod), 60, "on again")
    assert (await caller.ask(task("acme", push_assignment=True))).ok


async def test_optional_dispatch_needs_no_jetstream(own: Own, tmp_path: Path) -> None:
    """A server without JetStream decides; one reason says that there is none."""
    nats = NatsProcess(tmp_path / "nats", extra="jetstream: disabled")
    fleet, caller = await own(pods=0, policies=ACME, nats=nats, env={"ROUTER_DISPATCH": "optional"})
    pod = await fleet.pod().start()
    assert await is_degraded(pod, "JetStream")() or await is_degraded(pod, "cannot check the streams")()
    assert (await caller.ask(task("acme"))).ok
    assert (await caller.ask(task("acme", push_assignment=True))).error["code"] == "unavailable"


async def test_a_stream_that_is_lost_later_takes_dispatch_only(own: Own) -> None:
    """Somebody replaces ASSIGN by a stream of his own: 200 and degraded, decides go on; whole again when it is gone."""
    fleet, caller = await own(pods=1, policies=ACME)
    (pod,) = fleet.pods
    js = caller.client.jetstream()
    await js.delete_stream("ASSIGN")
    await js.add_stream(StreamConfig(name="THEIRS", subjects=["caf.exec.assign.*"]))
    await restart_nats(fleet, caller)
    await until(is_degraded(pod, "stream ASSIGN", "THEIRS"), 40, "degraded")
    assert (await caller.ask(task("acme"))).ok
    assert (await caller.ask(task("acme", push_assignment=True))).error["code"] == "unavailable"
    await js.delete_stream("THEIRS")
    await until(lambda: is_whole(pod), 60, "on again")
    assert (await caller.ask(task("acme", push_assignment=True))).ok


async def test_a_foreign_stream_may_serve_several_kinds(own: Own) -> None:
    """ROUTER_STREAM_<KIND>_NAME names a stream over caf.>: tasks go the whole way, and consumers deliver their own
    subjects only."""
    kinds = ("ASSIGN", "ASSIGNED", "ACK", "RESULT", "DLQ")
    fleet, caller, js = await overlapped(own, **{f"ROUTER_STREAM_{kind}_NAME": "CAF" for kind in kinds})
    await caller.client.jetstream().publish("caf.exec.somebody.else", b"not ours")
    pod = await fleet.pod().start()
    usage = await caller.watch("beamline.usage.v1.metered")
    async with Foreign(fleet.nats.url) as other:
        worker = await Worker(other).start()
        reply = await caller.ask(task("acme", push_assignment=True))
        await usage.one(assignment_id=reply.context["assignment_id"])
        assert {w["assignment_id"] for w in worker.taken} == {reply.context["assignment_id"]}
    infos = [c.config for c in await js.consumers_info("CAF")]
    filters = {c.durable_name: c.filter_subjects or [c.filter_subject] for c in infos}
    assert filters["workers"] == [ASSIGN]
    assert filters["router-fleet-results"][0] == "caf.exec.result.v1"
    assert filters["router-fleet-acks"][0] == "caf.exec.assign.v1.ack"
    assert (await pod.metrics())["router_stream_differences"] == 0


async def test_a_named_stream_that_does_not_cover_the_subject_is_a_reason(own: Own) -> None:
    """It stays as it is; the reason names the subject that it lacks."""
    fleet, caller = await own(pods=0, policies=ACME, env={"ROUTER_STREAM_RESULT_NAME": "THEIRS"})
    await caller.client.jetstream().add_stream(StreamConfig(name="THEIRS", subjects=["their.results"]))
    pod = await fleet.pod().start(wait=False)
    await until(says(pod, "stream THEIRS", "caf.exec.result.v1"), 40, "the reason")
