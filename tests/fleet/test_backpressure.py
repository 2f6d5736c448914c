"""The backpressure flag of real pods: Redis away with results waiting, and a tenant whose extension is slow."""

import asyncio
import time
from typing import Any

from tests.fleet.conftest import Own
from tests.fleet.extension import Extension
from tests.fleet.foreign import BACKPRESSURE, RESULT, Foreign, task
from tests.fleet.harness import PLAIN, until
from tests.fleet.queries import act


async def data(caller: Foreign) -> dict[str, Any]:
    """What the status says."""
    return dict((await caller.ask({}, subject=BACKPRESSURE)).body["data"])


async def test_results_that_wait_while_redis_is_away_are_seen(own: Own) -> None:
    """1,500 results: the status is active and the metric has them, and both are calm after Redis is back."""
    fleet, caller = await own(pods=2, policies={"acme": {"default": PLAIN}})
    assert (await caller.ask(task("acme"))).ok
    await asyncio.to_thread(fleet.valkey.kill)
    for number in range(1500):
        await caller.tell(
            RESULT, {"version": "1", "status": "success", "tenant_id": "acme", "request_id": f"n{number}"}
        )
    await caller.client.flush()

    async def active() -> bool:
        seen = await data(caller)
        return bool(seen["status"] == "active") and bool(seen["metrics"]["pending_messages"] >= 1000)

    await until(active, 20, "the backlog is seen")

    async def counted() -> bool:
        return bool(await fleet.total("router_consumer_lag") >= 1000)

    await until(counted, 20, "the metric has it")
    await asyncio.to_thread(fleet.valkey.start)

    async def calm() -> bool:
        return bool((await data(caller))["status"] == "inactive")

    await until(calm, 40, "the backlog is gone")


async def test_a_slow_extension_is_no_pressure_but_refusals_are(own: Own) -> None:
    """1,300 requests of a tenant with a slow extension: most are refused as overloaded, so the flag is up; five seconds
    later, with the same latencies in the window, it is down."""
    env = {"ROUTER_PIPELINES_MAX": "256"}
    fleet, caller = await own(pods=2, policies={"other": {"default": PLAIN}}, env=env)
    slow = await Extension(caller, "pre").start()
    slow.may_answer.clear()
    extended = {"pre": [{"id": slow.id, "mode": "required", "timeout_ms": 5000}]}
    tenant = await fleet.tenant(PLAIN | extended)
    asked = [asyncio.create_task(caller.ask(task(tenant), within_s=20)) for _ in range(1300)]

    async def refused() -> bool:
        return sum(t.done() for t in asked) >= 788 and bool((await data(caller))["status"] == "active")

    await until(refused, 20, "requests are refused, and the flag is up")
    assert {t.result().error["code"] for t in asked if t.done()} == {"service_overloaded"}
    ended = time.monotonic()
    slow.may_answer.set()
    await asyncio.gather(*asked)

    async def calm() -> bool:
        seen = [await data(caller) for _ in range(4)]  # either pod may answer
        return {s["status"] for s in seen} == {"inactive"}

    await until(calm, 8, "the flag is down")
    assert time.monotonic() - ended < 9


async def test_a_full_pod_is_pressure(own: Own) -> None:
    """Nine tenths of its own bound in flight; the threshold is shown."""
    fleet, caller = await own(pods=1, env={"ROUTER_MAX_IN_FLIGHT": "20"})
    slow = await Extension(caller, "pre").start()
    slow.may_answer.clear()
    extended = {"pre": [{"id": slow.id, "mode": "required", "timeout_ms": 5000}]}
    # Of several tenants: one alone gets half of a pod.
    tenants = [await fleet.tenant(PLAIN | extended) for _ in range(3)]
    for tenant in tenants:  # known to the pod: requests that wait for policies have one share together
        assert (await act(caller, "get_pipeline_complexity", {"tenant_id": tenant}))["ok"]
    asked = [asyncio.create_task(caller.ask(task(tenants[n % 3]), within_s=20)) for n in range(17)]
    await until(lambda: _in_flight(caller, 17), 10, "seventeen wait")
    seen = await data(caller)
    assert (seen["status"], seen["thresholds"]["inflight_overload"]) == ("warning", 18)
    asked.append(asyncio.create_task(caller.ask(task(tenants[2]), within_s=20)))
    await until(lambda: _in_flight(caller, 18), 10, "eighteen wait")
    assert (await data(caller))["status"] == "active"
    slow.may_answer.set()
    await asyncio.gather(*asked)
    assert (await data(caller))["status"] == "inactive"


async def _in_flight(caller: Foreign, count: int) -> bool:
    return bool((await data(caller))["metrics"]["inflight_messages"] == count)
