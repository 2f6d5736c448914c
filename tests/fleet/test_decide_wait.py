"""ROUTER_DECIDE_WAIT bounds the whole wait for Redis, whatever a request needs of it."""

import time

import orjson
import pytest

from tests.fleet.conftest import Own
from tests.fleet.extension import Extension
from tests.fleet.foreign import Body, task
from tests.fleet.frozen import frozen
from tests.fleet.harness import PLAIN

ENV = {"ROUTER_STORE_DEADLINE": "1s", "ROUTER_DECIDE_WAIT": "1100ms"}
WAIT_S, MARGIN_S = 1.1, 0.8
POLICIES = {
    "used": {"default": PLAIN, "sticky": PLAIN | {"sticky": {"session_key": "session_id", "ttl": "10m"}}},
    "unused": {"default": PLAIN},
}
ASKED: dict[str, Body] = {
    "plain": {"tenant_id": "used"},
    "with a session": {"tenant_id": "used", "policy_id": "sticky", "context": {"session_id": "s"}},
    "pushed": {"tenant_id": "used", "push_assignment": True},
    "of a tenant that is not loaded": {"tenant_id": "unused"},
    "of an unknown tenant": {"tenant_id": "nobody"},
    "of an unknown policy": {"tenant_id": "used", "policy_id": "none"},
}


@pytest.mark.parametrize("fields", ASKED.values(), ids=ASKED)
async def test_a_request_is_answered_within_the_wait(own: Own, fields: Body) -> None:
    """Redis is frozen: ten callers one after the other, each with an answer in time, in the first call or behind it."""
    fleet, caller = await own(pods=1, policies=POLICIES, env=ENV)
    assert (await caller.ask(task("used"))).ok
    async with frozen(fleet):
        started = time.monotonic()
        asked = [await caller.send(orjson.dumps(task("x") | fields)) for _ in range(10)]
        asked += [await caller.send(orjson.dumps(task("x") | fields)) for _ in range(10)]
        replies = [await future for future in asked]
        assert time.monotonic() - started < WAIT_S + MARGIN_S
    assert {r.error["code"] for r in replies} <= {"unavailable", "policy_not_found"}


@pytest.mark.parametrize("stage", ["pre", "validate", "post"])
async def test_a_request_with_extensions_waits_no_longer(own: Own, stage: str) -> None:
    """Redis freezes while an extension has the request: the row, the completion and the claim share one wait."""
    fleet, caller = await own(pods=1, env=ENV)
    froze = 0.0

    def freeze(_: Body) -> Body:
        nonlocal froze
        fleet.valkey.freeze()
        froze = time.monotonic()
        return {}

    extension = await Extension(caller, stage, freeze).start()
    key = {"pre": "pre", "validate": "validators", "post": "post"}[stage]
    step = {"id": extension.id, "on_fail": "block"} if stage == "validate" else {"id": extension.id, "mode": "required"}
    tenant = await fleet.tenant(PLAIN | {key: [step]})
    try:
        reply = await caller.ask(task(tenant))
        assert time.monotonic() - froze < WAIT_S + MARGIN_S
        assert not reply.ok
    finally:
        fleet.valkey.thaw()
