"""ROUTER_AUDIT_IDENTITY: what is left of a user and an address in Redis and the audit, and what goes on as always."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.conftest import run_process
from tests.fleet.conftest import Own
from tests.fleet.foreign import RESULT, USAGE, Foreign, Worker, task
from tests.fleet.harness import PLAIN, Fleet, Pod, until

USER, ADDRESS, SESSION = "alice@example.com", "203.0.113.77", "session-4711"
WHO = {"user_id": USER, "ip_address": ADDRESS}
ONE_EACH = PLAIN | {"limits": [{"id": "u", "scope": "user", "resource": "requests", "limit": 2, "window": "60s"}]}


async def served(fleet: Fleet, caller: Foreign) -> str:
    """A tenant with one plain and one pushed, metered request of the user, and one refused at the user's limit."""
    tenant = await fleet.tenant(ONE_EACH)
    usage = await caller.watch(USAGE)
    await Worker(caller).start()
    assert (await caller.ask(task(tenant, "plain", context=WHO))).ok
    assert (await caller.ask(task(tenant, "pushed", context=WHO, push_assignment=True))).ok
    await usage.one(request_id="pushed")
    assert (await caller.ask(task(tenant, "third", context=WHO))).error["code"] == "rate_limit_exceeded"
    assert (await caller.ask(task(tenant, "other", context=WHO | {"user_id": "bob"}))).ok

    async def logged() -> bool:
        return {"result.settled", "decision.refused"} <= {e.action for e in await fleet.audit(tenant)}

    await until(logged, 20, "the result and the refusal are in the log")
    return tenant


async def everything(fleet: Fleet, tenant: str) -> bytes:
    """The tenant's log and delivery records, as they lie in Redis."""
    keys = fleet.keys.tenant(tenant)
    log = await fleet.redis("XRANGE", keys.audit, "-", "+")
    tasks = await fleet.nodes.gather([("GET", k) for k in await fleet.nodes.scan("*:task:*", 1000, 1000)])
    return b"".join(fields[b"r"] for _, fields in log) + b"".join(raw or b"" for raw in tasks)


async def found(fleet: Fleet, folder: Path, tenant: str) -> list[dict[str, Any]]:
    """`router audit query --user` by the plain name."""
    where = ("--tenant", tenant, "--redis", fleet.valkey.url, "--json")
    ran = await run_process("audit", "query", *where, "--user", USER, cwd=folder)
    entries: list[dict[str, Any]] = orjson.loads(ran.out)["entries"]
    return entries


async def kinds_that_hold(fleet: Fleet, text: str) -> set[str]:
    """The kinds of keys whose name or value holds the text: `audit`, `task` and so on, or `answer`."""
    read: dict[bytes, tuple[str | int, ...]] = {
        b"string": ("GET",),
        b"hash": ("HGETALL",),
        b"list": ("LRANGE", 0, -1),
        b"zset": ("ZRANGE", 0, -1),
        b"stream": ("XRANGE", "-", "+"),
    }
    kinds = set()
    for key in await fleet.nodes.scan("*", 1000, 100_000):
        command, *bounds = read.get(await fleet.redis("TYPE", key), ("EXISTS",))
        if text.encode() in key or text in repr(await fleet.redis(command, key, *bounds)):
            parts = key.split(b":")
            kinds.add("answer" if b"{" in parts[0] else parts[3 if parts[1].startswith(b"{") else 1].decode())
    return kinds


async def test_people_are_where_the_table_says(own: Own) -> None:
    """The table "Where people's data is" of docs/OPERATIONS.md, in clear: a running task, a metered decision, a refusal
    of an unknown tenant, and what is left when the task has ended."""
    fleet, caller = await own(pods=1)
    limits = [
        {"id": "log", "scope": "user", "resource": "requests", "limit": 9, "window": "1h", "algorithm": "log"},
        {"id": "slots", "scope": "user", "resource": "concurrency", "limit": 9},
        {"id": "sum", "scope": "user", "resource": "requests", "limit": 9, "window": "1h"},
    ]
    tenant = await fleet.tenant(PLAIN | {"limits": limits, "sticky": {}})
    context = WHO | {"session_id": SESSION}
    assert (await caller.ask(task(tenant, "plain", context=context, options={"meter": True}))).ok
    assert not (await caller.ask(task("nobody-here", context=context))).ok
    long = {"deadline_ms": 600_000}
    pushed = await caller.ask(task(tenant, "pushed", context=context, push_assignment=True, options=long))
    assert await kinds_that_hold(fleet, USER) == {"answer", "audit", "task", "job", "l", "c"}
    assert await kinds_that_hold(fleet, SESSION) == {"answer", "job"}

    async def listed() -> bool:
        return await kinds_that_hold(fleet, ADDRESS) == {"answer", "audit", "task", "job", "unknown"}

    await until(listed, 30, "the refusal is in the log of unknown tenants")
    result = {"version": "1", "assignment_id": pushed.context["assignment_id"], "request_id": "pushed"}
    await caller.tell(RESULT, result | {"status": "success"})

    async def ended() -> bool:
        return "job" not in await kinds_that_hold(fleet, USER)

    await until(ended, 30, "the work item is gone")
    assert await kinds_that_hold(fleet, SESSION) == {"answer"}
    assert await kinds_that_hold(fleet, USER) <= {"answer", "audit", "task", "l", "c"}


async def test_hashed_names(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is left in clear, limits are each user's, and the plain name finds the entries where the key is."""
    key = tmp_path / "key"
    key.write_text("a key of this test, thirty-two characters and more\n")
    env = {"ROUTER_AUDIT_IDENTITY": "hashed", "ROUTER_AUDIT_IDENTITY_KEY_FILE": str(key)}
    fleet, caller = await own(pods=1, env=env)
    tenant = await served(fleet, caller)
    raw = await everything(fleet, tenant)
    assert USER.encode() not in raw
    assert ADDRESS.encode() not in raw
    assert await found(fleet, tmp_path, tenant) == []
    monkeypatch.setenv("ROUTER_AUDIT_IDENTITY_KEY_FILE", str(key))
    entries = await found(fleet, tmp_path, tenant)
    assert {"decision.made", "decision.refused", "result.settled"} <= {e["action"] for e in entries}
    (user,) = {e["user_id"] for e in entries}
    assert user.startswith("h:")
    assert len({e["ip_address"] for e in entries}) == 1


async def test_no_names(own: Own, tmp_path: Path) -> None:
    """Neither in clear nor hashed; limits are each user's all the same."""
    fleet, caller = await own(pods=1, env={"ROUTER_AUDIT_IDENTITY": "off"})
    tenant = await served(fleet, caller)
    raw = await everything(fleet, tenant)
    assert USER.encode() not in raw
    assert b"h:" not in raw
    assert {e.user_id for e in await fleet.audit(tenant)} == {None}
    assert await found(fleet, tmp_path, tenant) == []


async def test_hashed_names_need_a_key(servers: None, fleet: Fleet) -> None:
    """A pod without one ends at once, and says which setting is missing; a command does not need it."""
    pod = Pod("keyless", fleet.folder, fleet.pod_env | {"ROUTER_AUDIT_IDENTITY": "hashed"})
    await pod.start(wait=False)
    assert await pod.ended() == 2
    assert "ROUTER_AUDIT_IDENTITY_KEY_FILE" in pod.log.read_text()
