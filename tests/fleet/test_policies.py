"""A policy that changes is in force on every pod; the gate that closes and opens."""

import asyncio
import os
import sys
import time

import orjson
import pytest

from tests.fleet.conftest import Own
from tests.fleet.foreign import ALERTS, Body, Foreign, task
from tests.fleet.harness import PLAIN, STATE, Document, Fleet, until

AFTER: Document = {"version": "1.0", "providers": [{"name": "gamma", "weight": 100}]}
PINNED: Document = PLAIN | {"sticky": {"enabled": True, "session_key": "session_id", "ttl": "10m"}}


async def in_force(caller: Foreign, tenant: str, pods: int, revision: int) -> bool:
    """Whether each of so many pods decides by this revision."""
    replies = await caller.all([task(tenant) for _ in range(20)])
    return len({r.pod for r in replies}) == pods and {r.decision["policy_revision"] for r in replies} == {revision}


async def test_an_applied_policy_is_in_force_everywhere_within_a_second(fleet: Fleet, caller: Foreign) -> None:
    """`router policy apply` writes and announces: both pods decide by it within 1 s of its end."""
    tenant = await fleet.tenant()
    assert await in_force(caller, tenant, 2, 1)
    file = fleet.folder / f"{tenant}.json"
    file.write_bytes(orjson.dumps(AFTER))
    command = ("policy", "apply", str(file), "--tenant", tenant, "--policy", "default")
    env = {k: v for k, v in os.environ.items() if not k.startswith("ROUTER_")}
    env |= {"ROUTER_NATS_URL": fleet.nats.url, "ROUTER_REDIS_URL": fleet.valkey.url}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "router", *command),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    await until(lambda: in_force(caller, tenant, 2, 2), 1, "revision 2 on both pods")


async def test_a_change_that_nobody_announced_is_noticed(fleet: Fleet, caller: Foreign) -> None:
    """Every decide row tells the revision: a pod reloads at once when it differs."""
    tenant = await fleet.tenant()
    assert await in_force(caller, tenant, 2, 1)
    await fleet.publisher.apply(tenant, policy_id="default", document=orjson.dumps(AFTER))
    await until(lambda: in_force(caller, tenant, 2, 2), 1, "revision 2 on both pods")
    assert (await caller.ask(task(tenant))).decision["provider_id"] == "gamma"


async def test_a_roll_back_is_in_force_everywhere(fleet: Fleet, caller: Foreign) -> None:
    """What the policy was decides again, as a new revision."""
    tenant = await fleet.tenant()
    await fleet.publisher.apply(tenant, policy_id="default", document=orjson.dumps(AFTER))
    await until(lambda: in_force(caller, tenant, 2, 2), 1, "revision 2 on both pods")
    await fleet.publisher.rollback(tenant, policy_id="default", revision=1)
    await until(lambda: in_force(caller, tenant, 2, 3), 1, "revision 3 on both pods")
    assert (await caller.ask(task(tenant))).decision["provider_id"] in {"alpha", "beta"}


async def test_pods_tell_the_revision_that_they_decide_by(own: Own) -> None:
    """For tenants with a label of their own, on every pod; none is behind when all is quiet."""
    policies = {"acme": {"default": PLAIN}}
    fleet, caller = await own(pods=2, policies=policies, env={"ROUTER_METRICS_TENANTS": "acme"})

    async def told(revision: int) -> bool:
        await caller.all([task("acme") for _ in range(20)])
        metrics = [await pod.metrics() for pod in fleet.pods]
        skew = sum(m["router_policy_revision_skew"] for m in metrics)
        return skew == 0 and all(m['router_policy_revision{tenant="acme"}'] == revision for m in metrics)

    await until(lambda: told(1), 2, "revision 1")
    await fleet.publisher.apply("acme", policy_id="default", document=orjson.dumps(AFTER))
    await until(lambda: told(2), 2, "revision 2")


async def test_a_deleted_policy_is_gone(fleet: Fleet, caller: Foreign) -> None:
    """Without a policy: policy_not_found from both pods."""
    tenant = await fleet.tenant(PLAIN, other=AFTER)
    assert (await caller.ask(task(tenant, policy_id="other"))).ok
    await fleet.publisher.delete(tenant, policy_id="other")

    async def gone() -> bool:
        replies = await caller.all([task(tenant, policy_id="other") for _ in range(20)])
        return all(not r.ok and r.error["code"] == "policy_not_found" for r in replies)

    await until(gone, 2, "the policy is gone")
    assert (await caller.ask(task(tenant))).ok


async def test_a_first_policy_is_found_soon(fleet: Fleet, caller: Foreign) -> None:
    """A tenant that was unknown a moment ago: known within the short memory of absence (1 s)."""
    tenant = f"late-{time.time_ns()}"
    assert (await caller.ask(task(tenant))).error["code"] == "policy_not_found"
    await fleet.publisher.apply(tenant, policy_id="default", document=orjson.dumps(AFTER))

    async def known() -> bool:
        return (await caller.ask(task(tenant))).ok

    await until(known, 2, "the tenant is known")


BASELINE = {"default": {"default": PINNED}, "acme": {"default": PINNED}}


@pytest.mark.parametrize(
    "state", [None, STATE | {"current_cp": "CP1-LC"}, {"current_cp": 7}], ids=["none", "old", "bad"]
)
async def test_the_baseline_serves_one_tenant_without_pins(own: Own, state: Body | None) -> None:
    """No state file, an older or a bad one: other tenants are unauthorized, pins and explain ignored, as is said."""
    _, caller = await own(pods=1, policies=BASELINE, state=state)
    error = (await caller.ask(task("acme"))).error
    assert (error["code"], error["details"]["requires_cp"]) == ("unauthorized", "CP2-LC")
    bodies = [task("default", context={"session_id": "s"}, options={"explain": True}) for _ in range(30)]
    replies = await caller.all(bodies)
    assert {r.decision["reason"] for r in replies} == {"weighted"}
    assert {r.decision["provider_id"] for r in replies} == {"alpha", "beta"}
    assert {"pins", "explain"} <= set(replies[0].decision["metadata"]["requires_cp"])
    assert "explain" not in replies[0].context


async def test_the_gate_follows_its_file(own: Own) -> None:
    """Older: baseline, counted and alerted; good again: everything on, the alert resolved; no restart."""
    fleet, caller = await own(pods=1, policies=BASELINE)
    alerts = await caller.watch(ALERTS)
    assert (await caller.ask(task("acme"))).ok
    _replace(fleet, STATE | {"current_cp": "CP1-LC"})
    await until(lambda: _code(caller, "unauthorized"), 5, "baseline")
    metrics = await fleet.pods[0].metrics()
    assert sum(v for k, v in metrics.items() if k.startswith("router_cp_fallback_total")) == 1
    raised = await alerts.until(lambda a: a["component"] == "gate")
    _replace(fleet, STATE)
    await until(lambda: _code(caller, None), 5, "all features")
    await alerts.until(lambda a: a["alert_id"] == raised[0]["alert_id"] and a["metadata"].get("resolved") is True)


async def test_a_state_file_that_vanishes_counts_for_its_grace(own: Own) -> None:
    """ROUTER_CP_GRACE: the last good value counts; then baseline."""
    fleet, caller = await own(pods=1, policies=BASELINE, env={"ROUTER_CP_GRACE": "1s"})
    assert (await caller.ask(task("acme"))).ok
    fleet.state_path.unlink()
    started = time.monotonic()
    await until(lambda: _code(caller, "unauthorized"), 5, "baseline")
    assert time.monotonic() - started > 0.9


def _replace(fleet: Fleet, state: Body) -> None:
    fresh = fleet.state_path.with_suffix(".new")
    fresh.write_bytes(orjson.dumps(state))
    fresh.replace(fleet.state_path)


async def _code(caller: Foreign, code: str | None) -> bool:
    reply = await caller.ask(task("acme"))
    return reply.ok if code is None else not reply.ok and reply.error["code"] == code
