"""The audit of a running fleet: what leaves it, what stays within its bounds, and what is never in it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.js.api import DeliverPolicy
from redis import Redis

from tests.fleet.conftest import Own
from tests.fleet.foreign import ACK, ALERTS, ASSIGN, RESULT, Body, Foreign, Watch, Worker, success, task
from tests.fleet.harness import PLAIN, Fleet, until
from tests.servers import ValkeyProcess

POLICIES = {"acme": {"default": PLAIN}}
SUBJECT = "beamline.audit.v1.entries"


def manifests(folder: Path) -> list[dict[str, Any]]:
    """What the manifests say, in the log's order."""
    found = [orjson.loads(p.read_bytes()) for p in folder.glob("tenant=acme/*.manifest.json")]
    return sorted(found, key=lambda m: [int(x) for x in m["first_id"].split("-")])


def exported(folder: Path) -> list[str]:
    """The ids of all finished files' entries, each file held against its manifest."""
    ids: list[str] = []
    for m in manifests(folder):
        data = (folder / "tenant=acme" / m["file"]).read_bytes()
        lines = [orjson.loads(line) for line in data.splitlines()]
        assert (hashlib.sha256(data).hexdigest(), len(data), len(lines)) == (m["sha256"], m["bytes"], m["count"])
        assert (lines[0]["id"], lines[-1]["id"]) == (m["first_id"], m["last_id"])
        ids += [line["id"] for line in lines]
    return ids


async def due(fleet: Fleet) -> None:
    """The fleet looks at acme's log at once."""
    await fleet.redis("ZADD", fleet.keys.retain(fleet.keys.tenant("acme").partition), 0, "acme")


async def looked(fleet: Fleet, fits: Callable[[], bool], what: str) -> None:
    """Have the log looked at until it fits; again when a look was under way, which had not seen all yet."""
    for _ in range(4):
        await due(fleet)
        try:
            await until(fits, 4, what)
        except AssertionError:
            continue
        return
    raise AssertionError(what)


async def test_entries_are_exported_to_files_and_stream(own: Own, tmp_path: Path) -> None:
    """Every entry once, in order, to both; the mark is in Redis, so other pods go on from it."""
    folder = tmp_path / "out"
    env = {"ROUTER_AUDIT_EXPORT_SUBJECT": SUBJECT, "ROUTER_AUDIT_EXPORT_DIR": str(folder)}
    fleet, caller = await own(pods=2, policies=POLICIES, env=env)
    for count in (30, 60):
        assert all(r.ok for r in await caller.all([task("acme") for _ in range(30)]))
        rows = await fleet.redis("XRANGE", fleet.keys.tenant("acme").audit, "-", "+")
        ids = [row[0].decode() for row in rows]
        await looked(fleet, lambda ids=ids: exported(folder) == ids, "all entries are in the files")  # type: ignore[misc]
        assert len(ids) >= count
    watch = await caller.watch(SUBJECT)
    seen = await watch.many(len(ids))
    assert [x["id"] for x in seen] == ids
    assert {x["tenant_id"] for x in seen} == {"acme"}


async def test_exports_read_from_the_replica(own: Own, tmp_path: Path) -> None:
    """Where one is named, so that decisions do not wait for them; every entry is there all the same."""
    folder = tmp_path / "out"
    with ValkeyProcess(tmp_path / "first", args=("--repl-diskless-sync-delay", "0")) as first:
        args = ("--replicaof", f"127.0.0.1 {first.port}")
        with ValkeyProcess(tmp_path / "second", args=args) as second, Redis.from_url(second.url) as replica:
            env = {"ROUTER_REDIS_REPLICA_URL": second.url, "ROUTER_AUDIT_EXPORT_DIR": str(folder)}
            fleet, caller = await own(pods=1, policies=POLICIES, env=env, valkey=first)
            assert all(r.ok for r in await caller.all([task("acme") for _ in range(40)]))
            ids = [row[0].decode() for row in await fleet.redis("XRANGE", fleet.keys.tenant("acme").audit, "-", "+")]
            await looked(fleet, lambda: exported(folder) == ids, "all entries are in the files")
            assert len(ids) >= 40
            stats: Any = replica.info("commandstats")
            assert stats["cmdstat_xrange"]["calls"] > 0
            await fleet.pods[0].stop()


async def test_the_baseline_exports_nothing_and_writes_no_lines(own: Own, tmp_path: Path) -> None:
    """CP1: the audit stays in Redis; with CP2-LC back, the export goes on with what was written meanwhile."""
    folder = tmp_path / "out"
    env = {"ROUTER_AUDIT_EXPORT_DIR": str(folder), "ROUTER_AUDIT_LOG_SAMPLE": "1", "ROUTER_BASELINE_TENANT": "acme"}
    state = {"current_cp": "CP1-LC", "updated_at": "2026-01-01T00:00:00Z"}
    fleet, caller = await own(pods=1, policies=POLICIES, env=env, state=state)
    assert (await caller.ask(task("acme", "before"))).ok
    marks = fleet.keys.tenant("acme").audit_marks
    await due(fleet)
    await until(lambda: fleet.redis("EXISTS", marks), 10, "the log was looked at")
    assert exported(folder) == []
    assert fleet.pods[0].logged("audit") == []
    fleet.state_path.write_bytes(orjson.dumps(state | {"current_cp": "CP2-LC"}))
    await until(lambda: fleet.pods[0].logged("gate.opened"), 10, "the gate is open")
    assert (await caller.ask(task("acme", "after"))).ok
    await looked(fleet, lambda: len(exported(folder)) >= 2, "the export has caught up")
    assert {x["details"]["request_id"] for x in fleet.pods[0].logged("audit")} == {"after"}


async def test_log_lines_say_what_the_log_says(own: Own) -> None:
    """Decisions, conflicts, refusals and steps of a task: the same facts, but for place, exact time, and what the row
    saw of its limits, which the pod knows only of explained requests."""
    limited = PLAIN | {"limits": [{"id": "few", "scope": "user", "resource": "requests", "limit": 1, "window": "60s"}]}
    fleet, caller = await own(pods=1, policies={"acme": {"default": limited}}, env={"ROUTER_AUDIT_LOG_SAMPLE": "1"})
    await Worker(caller).start()
    assert (await caller.ask(task("acme", "one", context={"user_id": "ann"}, options={"explain": True}))).ok
    assert not (await caller.ask(task("acme", "two", context={"user_id": "ann"}))).ok
    assert not (await caller.ask(task("acme", "one", context={"user_id": "bob"}))).ok
    assert (await caller.ask(task("acme", "three", push_assignment=True, trace_id="trace-3"))).ok

    async def settled() -> bool:
        return "result.settled" in await fleet.actions("acme")

    await until(settled, 10, "the task has ended")
    kept = [e for e in await fleet.audit("acme") if not e.action.startswith("policy.")]
    # The store has a record before the pod has heard of it.
    await until(lambda: len(fleet.pods[0].logged("audit")) >= len(kept), 5, "every record is a line")
    lines = fleet.pods[0].logged("audit")
    assert len(lines) == len(kept)
    for entry in kept:
        same = [x for x in lines if x["action"] == entry.action and x["resource_id"] == entry.resource_id]
        assert len(same) == 1, (entry, lines)
        told = dict(same[0]["details"])
        if entry.details["request_id"] != "one":
            entry.details.pop("limits", None)
        if entry.action == "decision.refused":
            assert told.pop("retry_after_ms") == entry.details.pop("retry_after_ms")
        assert told == entry.details
        assert abs(same[0]["ts_us"] - entry.ts_us) < 2_000_000
        assert (same[0]["user_id"], same[0]["trace_id"]) == (entry.user_id, entry.trace_id)
        assert (same[0]["tenant_id"], same[0]["outcome"]) == ("acme", entry.outcome)


async def test_unknown_tenants_make_no_keys_and_few_records(own: Own) -> None:
    """A flood under many names is one bounded log, one record for what is alike, and not one key a name."""
    fleet, caller = await own(pods=1, policies=POLICIES)
    before = set(await fleet.redis("KEYS", "*"))
    for _ in range(3):
        await caller.all([task(f"nobody-{n % 20}") for n in range(200)])
    assert (await caller.ask(task("acme", policy_id="none"))).error["code"] == "policy_not_found"

    async def recorded() -> bool:
        metrics = await fleet.pods[0].metrics()
        return bool(metrics['router_audit_unknown_tenants_total{outcome="recorded"}'] == 601)

    await until(recorded, 10, "all refusals are recorded")
    new = set(await fleet.redis("KEYS", "*")) - before
    assert not [k for k in new if b"nobody" in k]
    assert fleet.keys.unknown in new
    assert await fleet.redis("PTTL", fleet.keys.unknown) > 0
    rows = await fleet.redis("XRANGE", fleet.keys.unknown, "-", "+")
    assert len(rows) < 200


async def test_a_log_that_is_cut_inside_its_age_is_an_alert(own: Own) -> None:
    """The bound of 100 entries cuts young ones: counted and alerted once, with the tenant."""
    fleet, caller = await own(pods=2, policies=POLICIES, env={"ROUTER_AUDIT_MAX_LEN": "100"})
    alerts = await caller.watch(ALERTS)
    for _ in range(4):
        assert all(r.ok for r in await caller.all([task("acme") for _ in range(200)]))
        await due(fleet)
    (alert,) = (await alerts.until(lambda a: a["alert_id"].startswith("audit_cut_inside_age:acme")))[:1]
    assert alert["severity"] == "warning"
    assert alert["metadata"]["tenant_id"] == "acme"

    async def counted() -> bool:
        assert all(r.ok for r in await caller.all([task("acme") for _ in range(200)]))
        await due(fleet)
        return bool(await fleet.total("router_audit_cut_total") > 0)

    await until(counted, 10, "the cut is counted")


MARK = "Zq7mark"
PAYLOAD = {
    "prompt": f"{MARK}-payload",
    "password": f"{MARK}-password",
    "nested": {"token": f"{MARK}-nested", "deep": [f"{MARK}-deep"]},
}
TOKENS = {"ROUTER_ADMIN_TOKEN": f"{MARK}-admin-token-0123", "ROUTER_OPERATOR_TOKEN": f"{MARK}-operator-token-01"}


async def _drive(fleet: Fleet, caller: Foreign) -> None:
    """Every way in, with marks wherever no audit has a business: payloads, secrets, outputs, error texts, garbage."""
    headers = {"authorization": f"Bearer {MARK}-bearer", "x-api-key": f"{MARK}-header"}
    secret = {"context": {"session_id": "s", "user_id": "ann", "api_key": f"{MARK}-context", "password": f"{MARK}-ctx"}}
    marked = {"type": "chat", "payload": PAYLOAD}
    await caller.ask(task("acme", "plain", task=marked, metadata={"token": f"{MARK}-metadata"}, **secret), headers)
    await caller.ask(task("acme", "plain", task={"type": "chat", "payload": {"other": MARK}}), headers)
    await caller.ask(task("nobody", "unknown", task=marked, **secret), headers)
    await caller.ask(task("acme", "bad", task=marked, options={"deadline_ms": f"{MARK}-option"}), headers)
    await caller.raw(f'{{"version":"1","tenant_id":"acme","task":"{MARK}-shape"}}'.encode(), headers)
    await caller.raw(f'{{"broken {MARK}-json'.encode(), headers)
    await caller.ask({"api_key": f"{MARK}-key"}, headers, subject="beamline.router.v1.admin.get_extension_health")
    body = task("acme", "pushed", task=marked, push_assignment=True, metadata={"note": f"{MARK}-metadata"}, **secret)
    await caller.ask(body, headers)

    async def ended() -> bool:
        return "result.settled" in await fleet.actions("acme", "pushed")

    await until(ended, 10, "the pushed task has ended")
    for subject in (RESULT, ACK):
        await caller.client.publish(
            subject, f'{{"assignment_id":"x","output":"{MARK}-letter"'.encode(), headers=headers
        )
        await caller.tell(subject, {"assignment_id": "x", "status": "error", "error_message": f"{MARK}-error"}, headers)


async def _read(caller: Foreign, *subjects: str) -> list[Watch]:
    return [await caller.watch(s, DeliverPolicy.ALL) for s in subjects]


def _answer(assignment: Body) -> Body:
    """Fails once, with a secret in its words; then succeeds, with a marked output."""
    if assignment["attempt"] == 1:
        failed = {"status": "error", "error_code": "SERVER_ERROR", "error_message": f"token={MARK}-worker"}
        return success(assignment, output={"text": f"{MARK}-failed"}, **failed)
    return success(assignment, output={"text": f"{MARK}-output"})


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_no_payload_and_no_secret_leaves_through_audit_logs_metrics_or_letters(
    own: Own, tmp_path: Path, level: str
) -> None:
    """Marked payloads and secrets are sent every way in; audit keys, exports, log files, metrics, alerts, dead letters
    and errors hold none of the marks. The scan itself finds the marks where they belong: in the stream of work."""
    folder = tmp_path / "out"
    env = {
        "ROUTER_AUDIT_EXPORT_DIR": str(folder),
        "ROUTER_AUDIT_EXPORT_SUBJECT": SUBJECT,
        "ROUTER_AUDIT_LOG_SAMPLE": "1",
        "ROUTER_LOG_LEVEL": level,
        "ROUTER_ADMIN_NATS_READ": "token",
        **TOKENS,
    }
    fleet, caller = await own(pods=1, policies=POLICIES, env=env)
    await Worker(caller, _answer).start()
    letters, acks, alerts, work, told = await _read(caller, f"{RESULT}.dlq", f"{ACK}.dlq", ALERTS, ASSIGN, SUBJECT)
    await _drive(fleet, caller)
    for watch in (letters, acks):
        await watch.until(lambda x: "payload_sha256" in x, 2)
    await looked(fleet, lambda: bool(exported(folder)), "entries are exported")
    await until(lambda: fleet.redis("EXISTS", fleet.keys.unknown), 10, "the unknown tenant is recorded")
    assert MARK in str(work.seen)

    dumps = b""
    for key in await fleet.redis("KEYS", "*"):
        if (await fleet.redis("TYPE", key)) == b"stream":
            dumps += repr(await fleet.redis("XRANGE", key, "-", "+")).encode()
    assert b"plain" in dumps
    _, metrics = await fleet.pods[0].http("/metrics")
    _, ready = await fleet.pods[0].http("/readyz")
    replies = [r for rs in caller.replies.values() for r in rs if r.data.startswith(b'{"ok":false')]
    assert replies
    seen = {
        "audit keys": dumps,
        "log": fleet.pods[0].log.read_bytes(),
        "metrics": metrics + ready,
        "files": b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file()),
        "exported": str(told.seen).encode(),
        "letters": str(letters.seen + acks.seen + letters.headers + acks.headers).encode(),
        "alerts": str(alerts.seen).encode(),
        "errors": b"".join(r.data for r in replies),
    }
    for where, text in seen.items():
        assert text, where
        at = text.find(MARK.encode())
        assert at < 0, (where, text[max(0, at - 200) : at + 80])
