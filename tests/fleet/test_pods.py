"""Pods that die, are replaced, are drained, are started wrongly or too early (issue "done when")."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from nats.js.api import ConsumerConfig

from tests.fleet.conftest import Own
from tests.fleet.foreign import USAGE, Foreign, Worker, task
from tests.fleet.harness import PLAIN, READY_S, Fleet, Pod, until
from tests.fleet.load import Load
from tests.servers import ValkeyCluster

ACME = {"acme": {"default": PLAIN}}


async def quick_redelivery(caller: Foreign) -> None:
    """What a dead pod had taken comes again after 2 s instead of 30: an operator's right, and the test is shorter."""
    js = caller.client.jetstream()
    info = await js.consumer_info("RESULT", "router-fleet-results")
    config: ConsumerConfig = info.config
    config.ack_wait = 2.0
    await js.add_consumer("RESULT", config)


async def test_kill_9_of_a_pod_under_load_loses_and_doubles_nothing(own: Own) -> None:
    """Every answered request has one audit entry, every dispatched task reaches the worker, usage equals successes."""
    fleet, caller = await own(policies=ACME)
    await quick_redelivery(caller)
    usage = await caller.watch(USAGE)
    async with Foreign(fleet.nats.url) as other:
        worker = await Worker(other).start()
        async with Load(caller, "acme") as load:
            await load.more(300)
            await fleet.pods[0].kill()
            await load.more(300)
        assert {r.pod for r in load.answered.values()} == {"pod-1", "pod-2"}
        assert all(r.ok for r in load.answered.values())
        made = await _decided(fleet)
        assert max(made.values()) == 1
        assert set(load.answered) <= set(made)

        def all_taken() -> bool:
            return set(made) <= {w["request_id"] for w in worker.taken}

        await until(all_taken, 30, "every dispatched task reaches the worker")
        assert {r.context["assignment_id"] for r in load.answered.values()} <= {
            w["assignment_id"] for w in worker.taken
        }
        await usage.many(len(worker.successes), 20)
    await until(lambda: _drained(fleet), 30, "the outbox drains")
    assert {u["usage_id"] for u in usage.seen} == worker.successes
    assert len(usage.seen) == len(worker.successes) == len(made)
    assert Counter(await fleet.actions("acme"))["result.settled"] == len(made)
    assert caller.doubles() == 0


async def _decided(fleet: Fleet) -> Counter[str]:
    entries = await fleet.audit("acme")
    return Counter(str(e.details["request_id"]) for e in entries if e.action == "decision.made")


async def _drained(fleet: Fleet) -> bool:
    return await fleet.outbox() == 0


async def test_a_rolling_restart_under_load_loses_nothing(own: Own) -> None:
    """SIGTERM drains: every request has exactly one answer, a decision, while both pods are replaced one by one."""
    fleet, caller = await own(policies=ACME)
    usage = await caller.watch(USAGE)
    async with Foreign(fleet.nats.url) as other:
        worker = await Worker(other).start()
        async with Load(caller, "acme", patience_s=5) as load:
            for pod in list(fleet.pods):
                await load.more(100)
                assert await pod.stop() == 0
                await load.more(50)
                await pod.start()
            await load.more(100)
        assert load.unanswered == []
        assert all(r.ok for r in load.answered.values())
        assert caller.doubles() == 0
        made = await _decided(fleet)
        assert set(made) == set(load.answered)
        assert max(made.values()) == 1
        await usage.many(load.sent, 20)
        assert worker.successes == {u["usage_id"] for u in usage.seen}
    assert len(usage.seen) == load.sent
    for pod in fleet.pods:
        assert pod.logged("pod.bug") == []


@pytest.mark.parametrize(
    "requests", [4_000, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
async def test_rolling_updates_lose_no_request(own: Own, requests: int) -> None:
    """Every pod is replaced twice, a new one beside it first, under as much load as one client makes: each request has
    its one answer, a decision, and its one entry in the log."""
    fleet, caller = await own(policies=ACME, env={"ROUTER_AUDIT_MAX_LEN": "1000000"})
    share = requests // 5
    async with Load(caller, "acme", open_requests=64, patience_s=5, push=False) as load:
        for n in range(4):
            await load.more(share)
            await fleet.pod(f"new-{n}").start()
            leaving = fleet.pods.pop(0)
            assert await leaving.stop() == 0
            assert leaving.logged("pod.bug") == []
        await load.more(share)
    assert load.unanswered == []
    assert len(load.answered) == load.sent >= requests
    assert [r.error for r in load.answered.values() if not r.ok] == []
    assert caller.doubles() == 0
    assert len({r.pod for r in load.answered.values()}) == 6
    made = await _decided(fleet)
    assert set(made) == set(load.answered)
    assert max(made.values()) == 1


async def test_a_draining_pod_says_so_and_ends_in_time(own: Own) -> None:
    """After SIGTERM: "draining" and "stopped" in the log, exit code 0, the other pod answers everything."""
    fleet, caller = await own(policies=ACME)
    await fleet.pods[0].stop()
    assert fleet.pods[0].logged("pod.draining")
    assert fleet.pods[0].logged("pod.stopped")
    assert {r.pod for r in await caller.all([task("acme") for _ in range(20)])} == {"pod-2"}


async def test_redis_may_be_absent_at_boot(own: Own) -> None:
    """The pod lives, is not ready and says why; it gets ready when Redis appears."""
    fleet, caller = await own(pods=0, policies=ACME)
    await asyncio.to_thread(fleet.valkey.stop)
    pod = await fleet.pod().start(wait=False)
    await _alive_but_not_ready(pod, "store")
    await asyncio.to_thread(fleet.valkey.start)
    await pod.until_ready()
    assert (await caller.ask(task("acme"))).ok


async def test_an_absence_at_boot_is_logged_once(own: Own) -> None:
    """What keeps the pod waiting is said once, not with every try."""
    fleet, _ = await own(pods=0, policies=ACME)
    await asyncio.to_thread(fleet.valkey.stop)
    tries = asyncio.Semaphore(0)

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.release()
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", fleet.valkey.port):
        pod = await fleet.pod().start(wait=False)
        async with asyncio.timeout(20):
            for _ in range(6):
                await tries.acquire()
    said = Counter(line["message"] for line in pod.logged("pod.not_ready"))
    assert said
    assert max(said.values()) == 1


async def test_a_cluster_may_be_absent_at_boot(own: Own, tmp_path: Path) -> None:
    """The same for a Redis Cluster of which no node is there yet."""
    fleet, caller = await own(pods=0, policies=ACME)
    cluster = ValkeyCluster(tmp_path / "cluster")
    pod = fleet.pod(ROUTER_REDIS_URL=cluster.url, ROUTER_REDIS_CLUSTER="true")
    await pod.start(wait=False)
    await _alive_but_not_ready(pod, "store")
    await asyncio.to_thread(cluster.__enter__)
    try:
        await pod.until_ready()
        assert (await caller.ask(task("acme"))).ok
        assert await pod.stop() == 0
    finally:
        await asyncio.to_thread(cluster.__exit__)


async def test_a_store_that_evicts_counters_is_refused(own: Own) -> None:
    """allkeys-lru would drop limits and answers: not ready, with the name of the setting, until it is put right."""
    fleet, caller = await own(pods=0, policies=ACME)
    await fleet.redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    pod = await fleet.pod().start(wait=False)

    async def told() -> bool:
        status, body = await pod.readyz()
        return status == 503 and "allkeys-lru" in body["reasons"].get("store", "")

    await until(told, READY_S, "/readyz names the policy")
    await fleet.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await pod.until_ready()
    assert (await caller.ask(task("acme"))).ok


async def test_nats_may_be_absent_at_boot(own: Own) -> None:
    """Likewise for NATS."""
    fleet, caller = await own(pods=0, policies=ACME)
    await asyncio.to_thread(fleet.nats.stop)
    pod = await fleet.pod().start(wait=False)
    await _alive_but_not_ready(pod, "bus")
    await asyncio.to_thread(fleet.nats.start)
    await pod.until_ready()
    await until(lambda: caller.client.is_connected, 30, "the caller is back")
    assert (await caller.ask(task("acme"))).ok


async def _alive_but_not_ready(pod: Pod, condition: str) -> None:
    async def told() -> bool:
        status, body = await pod.readyz()
        return status == 503 and len(body["reasons"].get(condition, "")) > len("not checked yet")

    await until(told, READY_S, f"/readyz names {condition}")
    assert (await pod.http("/livez"))[0] == 200


async def test_names_that_kubernetes_injects_are_ignored(own: Own) -> None:
    """A Service called `router` puts these into every pod's environment."""
    injected = {
        "ROUTER_PORT": "tcp://10.0.0.1:8080",
        "ROUTER_SERVICE_HOST": "10.0.0.1",
        "ROUTER_SERVICE_PORT": "8080",
        "ROUTER_SERVICE_PORT_HTTP": "8080",
        "ROUTER_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "ROUTER_PORT_8080_TCP_PROTO": "tcp",
        "ROUTER_PORT_8080_TCP_PORT": "8080",
        "ROUTER_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    _, caller = await own(pods=1, policies=ACME, env=injected)
    assert (await caller.ask(task("acme"))).ok


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [("ROUTER_NATS_URLS", "nats://x:1", "ROUTER_NATS_URL"), ("ROUTER_HTTP_PORT", "99999", "65535")],
)
async def test_a_bad_setting_is_refused(tmp_path: object, fleet: Fleet, name: str, value: str, hint: str) -> None:
    """Exit code 2 and one message that names the variable and what to change."""
    pod = Pod("wrong", fleet.folder, fleet.pod_env)
    pod.log = fleet.folder / f"wrong-{name}.log"
    await pod.start(wait=False, **{name: value})
    assert await pod.ended() == 2
    said = pod.log.read_text()
    assert name in said
    assert hint in said


async def test_another_number_of_partitions_is_refused(fleet: Fleet) -> None:
    """P is fixed at the fleet's first boot."""
    pod = Pod("other-partitions", fleet.folder, fleet.pod_env)
    await pod.start(wait=False, ROUTER_PARTITIONS="32")
    assert await pod.ended() == 2
    assert "64" in pod.log.read_text()


async def test_overload_is_told_quickly(own: Own) -> None:
    """Beyond ROUTER_MAX_IN_FLIGHT: `service_overloaded` with retry_after, one answer each, well again after."""
    fleet, caller = await own(pods=1, policies=ACME, env={"ROUTER_MAX_IN_FLIGHT": "8"})
    assert (await caller.ask(task("acme"))).ok
    replies = await caller.all([task("acme") for _ in range(500)])
    shed = [r.error for r in replies if not r.ok]
    assert shed
    assert {e["code"] for e in shed} == {"service_overloaded"}
    assert all(e["details"]["retry_after_ms"] > 0 for e in shed)
    assert await fleet.total("router_shed_total") == len(shed)
    assert (await caller.ask(task("acme"))).ok
    assert caller.doubles() == 0
