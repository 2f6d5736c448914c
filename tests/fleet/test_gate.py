"""The gate's table, a cell a test, on a running pod: what the CP1 baseline keeps, what only CP2-LC has."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec import Struct

from router.store.keys import NO_TENANT
from tests.fleet.conftest import Own
from tests.fleet.extension import Extension
from tests.fleet.foreign import ALERTS, ASSIGN, RESULT, USAGE, Body, Foreign, Reply, success, task
from tests.fleet.harness import PLAIN, STATE, Document, Fleet, until

TENANT = "default"
CPS = ("CP1-LC", "CP2-LC")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
POLICIES: dict[str, Document] = {
    "default": PLAIN,
    "sticky": PLAIN | {"sticky": {"session_key": "session_id", "ttl": "10m"}},
    "best": PLAIN | {"selection": "best_score"},
    "limited": PLAIN
    | {"limits": [{"id": "one", "scope": "user", "resource": "requests", "limit": 1, "window": "60s"}]},
    "fragile": {
        "version": "1.0",
        "providers": [{"name": "frail", "weight": 100, "priority": 1}, {"name": "sound", "weight": 100}],
        "circuit_breaker": {"enabled": True, "failure_threshold": 1, "timeout_ms": 60_000},
    },
    "walked": PLAIN | {"fallbacks": [{"when": {"status": "5xx"}, "to": "gamma"}]},
    "masked": PLAIN | {"pre": [{"id": "mask", "mode": "optional"}]},
    "must_mask": PLAIN | {"pre": [{"id": "must-mask", "mode": "required"}]},
    "checked": PLAIN | {"validators": [{"id": "check", "on_fail": "block"}]},
}


class Stand(Struct, frozen=True):
    """One pod under one checkpoint, a caller, and where the pod's export goes."""

    full: bool
    fleet: Fleet
    caller: Foreign
    exports: Path

    async def ask(self, policy: str = "default", tenant: str = TENANT, **more: Any) -> Reply:
        """A fresh request."""
        return await self.caller.ask(task(tenant, policy_id=policy, **more))

    async def pushed(self, policy: str = "default", headers: dict[str, str] | None = None, **more: Any) -> Body:
        """The work item of a fresh task."""
        work = await self.caller.watch(ASSIGN)
        body = task(TENANT, policy_id=policy, push_assignment=True, **more)
        assert (await self.caller.ask(body, headers)).ok
        return await work.one(request_id=body["request_id"])

    async def seen(self, action: str, request_id: str) -> None:
        """Wait for an entry in the audit log."""

        async def there() -> bool:
            return action in await self.fleet.actions(TENANT, request_id)

        await until(there, 10, f"{action} of {request_id}")

    def gated(self, decision: Body, feature: str) -> None:
        """The decision names the feature as refused, exactly where it is."""
        refused = decision.get("metadata", {}).get("requires_cp")
        assert refused == (None if self.full else {feature: "CP2-LC"})


@pytest.fixture(scope="module", params=CPS)
async def stand(
    servers: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    """Everything that the gate opens is switched on by settings; only the checkpoint differs."""
    folder = tmp_path_factory.mktemp(str(request.param))
    env = {
        "ROUTER_AUDIT_EXPORT_DIR": str(folder / "out"),
        "ROUTER_AUDIT_LOG_SAMPLE": "1",
        "ROUTER_METRICS_TENANTS": TENANT,
        "ROUTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    }
    policies = {TENANT: POLICIES, "second": {"default": PLAIN}}
    state = STATE | {"current_cp": request.param}
    async with (
        Fleet(folder / "fleet", pods=1, policies=policies, env=env, state=state) as fleet,
        Foreign(fleet.nats.url) as caller,
    ):
        yield Stand(request.param == "CP2-LC", fleet, caller, folder / "out")


async def multi_tenant(s: Stand) -> None:
    """Only the baseline tenant is served below; the refusal says what it takes."""
    reply = await s.ask(tenant="second")
    if s.full:
        assert reply.ok
    else:
        assert reply.error["code"] == "unauthorized"
        assert reply.error["details"]["requires_cp"] == "CP2-LC"


async def pins(s: Stand) -> None:
    """The second request of a session is sticky, or weighted like any other."""
    replies = [await s.ask("sticky", context={"session_id": "s-1"}) for _ in range(2)]
    assert [r.decision["reason"] for r in replies] == ["weighted", "sticky" if s.full else "weighted"]
    s.gated(replies[1].decision, "pins")


async def further_attempts(s: Stand) -> None:
    """A failed attempt is followed by a second one, or is the end of the task."""
    work = await s.pushed()
    await s.caller.tell(RESULT, success(work, status="error", error_code="SERVER_ERROR"))
    await s.seen("result.settled", work["request_id"])
    watch = await s.caller.watch(ASSIGN)
    if s.full:
        await watch.one(request_id=work["request_id"], attempt=2)
    else:
        later = await s.pushed()
        await watch.one(request_id=later["request_id"])
        assert [w["attempt"] for w in watch.where(request_id=work["request_id"])] == [1]


async def best_score(s: Stand) -> None:
    """By live figures, or by weight."""
    decision = (await s.ask("best")).decision
    assert decision["reason"] == ("best_score" if s.full else "weighted")
    s.gated(decision, "best_score")


async def explain(s: Stand) -> None:
    """The reply explains itself, or says why not."""
    reply = await s.ask(options={"explain": True})
    assert ("explain" in reply.context) is s.full
    s.gated(reply.decision, "explain")


async def optional_extensions(s: Stand) -> None:
    """Called, or passed over; the request is decided either way."""
    mask = await Extension(s.caller, "pre", name="mask").start()
    decision = (await s.ask("masked")).decision
    assert bool(mask.calls) is s.full
    s.gated(decision, "extensions")


async def required_pre(s: Stand) -> None:
    """A policy that may not be answered without its extension is not."""
    mask = await Extension(s.caller, "pre", name="must-mask").start()
    await _required(s, "must_mask", mask)


async def blocking_validator(s: Stand) -> None:
    """The same for a validator that may block."""
    check = await Extension(s.caller, "validate", name="check").start()
    await _required(s, "checked", check)


async def _required(s: Stand, policy: str, extension: Extension) -> None:
    reply = await s.ask(policy)
    assert bool(extension.calls) is s.full
    if s.full:
        assert reply.ok
    else:
        assert reply.error["code"] == "extension_unavailable"
        assert reply.error["details"]["requires_cp"] == "CP2-LC"


async def audit_export(s: Stand) -> None:
    """A look at the log exports it, or leaves it in Redis."""
    assert (await s.ask()).ok
    keys = s.fleet.keys.tenant(TENANT)
    looks = await s.fleet.redis("HGET", keys.audit_marks, "added")

    async def looked() -> bool:
        await s.fleet.redis("ZADD", s.fleet.keys.retain(keys.partition), 0, TENANT)
        done = await s.fleet.redis("HGET", keys.audit_marks, "added") not in (None, looks)
        return done and bool(list(s.exports.rglob("*.jsonl"))) is s.full

    await until(looked, 10, "the log was looked at")


async def audit_lines(s: Stand) -> None:
    """The records are log lines, or none is."""
    reply = await s.ask()
    lines = [x["details"]["request_id"] for x in s.fleet.pods[0].logged("audit")]
    assert (reply.context["request_id"] in lines) is s.full
    assert bool(lines) is s.full


async def tracing(s: Stand) -> None:
    """The work carries a span of the pod, or the caller's own."""
    watch = await s.caller.watch(ASSIGN)
    work = await s.pushed(headers={"traceparent": PARENT})
    await watch.one(request_id=work["request_id"])
    at = next(n for n, w in enumerate(watch.seen) if w["request_id"] == work["request_id"])
    found = watch.headers[at]["traceparent"]
    assert found.split("-")[1] == PARENT.split("-")[1]
    assert (found != PARENT) is s.full


async def tenant_metrics(s: Stand) -> None:
    """A named tenant has a label of its own, or counts among the others."""
    assert (await s.ask()).ok
    metrics = await s.fleet.pods[0].metrics()
    own = [v for k, v in metrics.items() if k.startswith("router_decisions_total") and f'tenant="{TENANT}"' in k]
    assert (sum(own) > 0) is s.full
    assert (f'router_policy_revision{{tenant="{TENANT}"}}' in metrics) is s.full


async def steps_of_the_caller(s: Stand) -> None:
    """A caller that reports a failed provider is led by its rule, or answered by weight."""
    first = await s.caller.ask(task(TENANT, "walked", policy_id="walked"))
    failed = {"status": "503", "current_provider": first.decision["provider_id"]}
    again = await s.caller.ask(task(TENANT, "walked", policy_id="walked", context=failed))
    assert again.decision["reason"] == ("fallback" if s.full else "weighted")
    s.gated(again.decision, "retries")


async def weighted_routing(s: Stand) -> None:
    """Every provider has its share."""
    replies = await s.caller.all([task(TENANT) for _ in range(60)])
    assert {(r.decision["provider_id"], r.decision["reason"]) for r in replies} == {
        ("alpha", "weighted"),
        ("beta", "weighted"),
    }


async def limits(s: Stand) -> None:
    """One passes, the next one does not."""
    first, second = [await s.ask("limited", context={"user_id": "ann"}) for _ in range(2)]
    assert first.ok
    assert second.error["code"] == "rate_limit_exceeded"


async def idempotency(s: Stand) -> None:
    """A repeat gets the same decision."""
    first, second = [await s.caller.ask(task(TENANT, "idempotent")) for _ in range(2)]
    assert second.context["replayed"] is True
    assert second.decision == first.decision


async def breakers(s: Stand) -> None:
    """A failure opens it, and the next request goes elsewhere."""
    work = await s.pushed("fragile", options={"retry": {"max_attempts": 1}})
    await s.caller.tell(RESULT, success(work, status="error", error_code="SERVER_ERROR"))
    await s.seen("breaker.opened", work["request_id"])
    assert (await s.ask("fragile")).decision["provider_id"] == "sound"


async def dispatch_results_and_usage(s: Stand) -> None:
    """A task goes out, its result settles it, and it is metered."""
    work = await s.pushed()
    await s.caller.tell(RESULT, success(work))
    await (await s.caller.watch(USAGE)).one(request_id=work["request_id"])


async def alerts(s: Stand) -> None:
    """A foreign result is told to the alert stream."""
    work = await s.pushed()
    await s.caller.tell(RESULT, success(work, tenant_id="second"))
    watch = await s.caller.watch(ALERTS)
    await watch.until(lambda a: a["alert_id"].startswith("isolation_violation"))


async def audit_in_redis(s: Stand) -> None:
    """The decision is in the tenant's log."""
    reply = await s.ask()
    await s.seen("decision.made", reply.context["request_id"])


async def health(s: Stand) -> None:
    """The pod is ready in both, and says how the gate stands."""
    status, body = await s.fleet.pods[0].readyz()
    assert status == 200
    assert body["gate"]["open"] is s.full
    assert body["gate"]["reason"] == (None if s.full else "older")
    assert (await s.fleet.pods[0].http("/livez"))[0] == 200


async def basic_metrics(s: Stand) -> None:
    """Decisions are counted, and the gate is a gauge."""
    assert (await s.ask()).ok
    assert await s.fleet.total("router_decisions_total") > 0
    assert await s.fleet.total("router_gate_open") == int(s.full)


KEPT = (
    *(weighted_routing, limits, idempotency, breakers, dispatch_results_and_usage),
    *(alerts, audit_in_redis, health, basic_metrics),
)
GATED = (
    *(
        multi_tenant,
        pins,
        further_attempts,
        steps_of_the_caller,
        best_score,
        explain,
        optional_extensions,
        required_pre,
    ),
    *(blocking_validator, audit_export, audit_lines, tracing, tenant_metrics),
)


@pytest.mark.parametrize("cell", [*KEPT, *GATED], ids=lambda cell: cell.__name__)
async def test_cell(stand: Stand, cell: Callable[[Stand], Awaitable[None]]) -> None:
    """What the table says of this feature under this checkpoint."""
    await cell(stand)


async def turned(fleet: Fleet, *, open_: bool) -> None:
    """Wait until the pod's gate is like that."""
    await until(lambda: _stands(fleet, open_), 10, f"the gate is {'open' if open_ else 'closed'}")


async def _stands(fleet: Fleet, open_: bool) -> bool:
    return bool((await fleet.pods[0].readyz())[1]["gate"]["open"] is open_)


@pytest.mark.parametrize(
    ("reason", "content"),
    [("missing", None), ("malformed", b"{"), ("older", b'{"current_cp":"CP1-LC"}'), ("unreadable", b"")],
)
async def test_every_fallback_is_told_everywhere(own: Own, reason: str, content: bytes | None) -> None:
    """Log line, counter, alert, /readyz, and a record in the log of no tenant; the return too."""
    fleet, caller = await own(pods=1, env={"ROUTER_CP_GRACE": "0s"}, policies={TENANT: POLICIES})
    pod, path = fleet.pods[0], fleet.state_path
    good, other = path.read_bytes(), path.with_suffix(".new")
    # In one step: a pod without grace would see that the file is missing.
    if content is None:
        path.unlink()
    elif reason == "unreadable":
        other.symlink_to(path.name)  # which will be itself
        other.replace(path)
    else:
        other.write_bytes(content)
        other.replace(path)
    await turned(fleet, open_=False)
    other.write_bytes(good)
    other.replace(path)
    await turned(fleet, open_=True)
    assert [x["reason"] for x in pod.logged("gate.closed")][-1] == reason
    assert (await pod.metrics())[f'router_cp_fallback_total{{reason="{reason}"}}'] >= 1
    watch = await caller.watch(ALERTS)
    told = await watch.until(lambda a: a["alert_id"].startswith("cp_state_unusable"), 2)
    assert any(a["metadata"].get("resolved") for a in told)

    async def recorded() -> bool:
        turns = [e for e in await fleet.audit(NO_TENANT) if e.action == "gate.changed"]
        return len(turns) >= 2

    await until(recorded, 5, "both turns are recorded")
    turns = [e for e in await fleet.audit(NO_TENANT) if e.action == "gate.changed"]
    assert {e.details["pod"] for e in turns} == {pod.name}
    assert [e.details["open"] for e in turns][-1] is True
    assert reason in [e.details.get("reason") for e in turns]
    assert turns[-1].resource_id == "CP2-LC"


async def test_a_file_that_goes_and_comes_back_under_load(own: Own) -> None:
    """Within the grace nobody notices; after it other tenants are refused with the reason, the baseline tenant is not;
    when the file is back all are served. Everyone gets exactly one answer all the while."""
    policies = {TENANT: {"default": PLAIN}, "second": {"default": PLAIN}}
    fleet, caller = await own(pods=1, env={"ROUTER_CP_GRACE": "2s"}, policies=policies)
    good = fleet.state_path.read_bytes()
    seen: list[tuple[str, Reply]] = []

    async def load() -> set[bool]:
        """Some more requests of both; how the second tenant fared."""
        replies = await caller.all([task(t) for _ in range(20) for t in (TENANT, "second")])
        seen.extend(zip([TENANT, "second"] * 20, replies, strict=True))
        return {r.ok for r in replies[1::2]}

    assert await load() == {True}
    fleet.state_path.unlink()

    async def doubted() -> bool:
        assert await load() == {True}
        return bool((await fleet.pods[0].readyz())[1]["gate"]["doubt"])

    await until(doubted, 2, "the pod misses the file")
    fleet.state_path.write_bytes(good)
    assert await load() == {True}
    fleet.state_path.unlink()

    async def fares(how: bool) -> bool:
        return await load() == {how}

    await until(lambda: fares(False), 10, "the grace is over")
    fleet.state_path.write_bytes(good)
    await until(lambda: fares(True), 10, "the gate is open again")
    assert all(r.ok for tenant, r in seen if tenant == TENANT)
    assert {r.error["details"]["requires_cp"] for _, r in seen if not r.ok} == {"CP2-LC"}
    assert caller.doubles() == 0


async def test_configmap_swaps_and_half_written_files_under_load(own: Own) -> None:
    """Swaps of the symlink between good files, and a file that is half there for ten polls, refuse nobody; the alert is
    raised meanwhile; a newer checkpoint is as good as CP2-LC."""
    fleet, caller = await own(pods=1, env={"ROUTER_CP_POLL": "100ms"}, policies={"second": {"default": PLAIN}})
    alerts = await caller.watch(ALERTS)
    path = fleet.state_path
    newer = orjson.dumps(STATE | {"current_cp": "CP9-LC"})
    for name, content in (("one", path.read_bytes()), ("two", newer)):
        (path.parent / name).mkdir()
        (path.parent / name / "state.json").write_bytes(content)
    replies: list[Reply] = []

    async def shows(checkpoint: str) -> bool:
        replies.extend(await caller.all([task("second") for _ in range(20)]))
        return bool((await fleet.pods[0].readyz())[1]["gate"]["current_cp"] == checkpoint)

    for name, checkpoint in (("two", "CP9-LC"), ("one", "CP2-LC"), ("two", "CP9-LC")):
        (path.parent / "..tmp").symlink_to(name)
        (path.parent / "..tmp").rename(path.parent / "..data")
        if not path.is_symlink():
            link = path.parent / "link"
            link.symlink_to("..data/state.json")
            link.replace(path)
        path.resolve().open("r+b").close()
        await until(lambda checkpoint=checkpoint: shows(checkpoint), 10, checkpoint)  # type: ignore[misc]
    target = path.resolve()
    target.write_bytes(newer[:20])

    async def doubted() -> bool:
        replies.extend(await caller.all([task("second") for _ in range(20)]))
        return bool((await fleet.pods[0].readyz())[1]["gate"]["doubt"])

    await until(doubted, 5, "the half-written file was seen")
    await alerts.until(lambda a: a["component"] == "gate" and a["metadata"]["reason"] == "malformed")
    half_written = time.monotonic()
    while time.monotonic() - half_written < 1:
        assert await doubted()
    target.write_bytes(newer)
    await until(lambda: shows("CP9-LC"), 10, "whole again")
    assert all(r.ok for r in replies)
    assert fleet.pods[0].logged("gate.closed") == []
