"""The HTTP API of real pods: decisions, keys that change, tenants, TLS, and an end under load."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import orjson

from router.domain.api_key import ApiRole, Asker
from router.edge.api.key_file import KeyFile, new_key
from tests.certificates import Authority
from tests.fleet.conftest import Own
from tests.fleet.foreign import Foreign, Worker
from tests.fleet.harness import PLAIN, Fleet, until
from tests.http_client import HttpClient, HttpReply
from tests.servers import free_port

POLICIES = {"acme": {"default": PLAIN}, "globex": {"default": PLAIN}}


def body(request_id: str, tenant: str = "acme") -> dict[str, Any]:
    """A request."""
    return {"version": "1", "tenant_id": tenant, "request_id": request_id, "task": {"type": "chat"}}


class Api:
    """The keys of a fleet, and its pods' API ports. Each pod has its own port from `environment`."""

    def __init__(self, folder: Path) -> None:
        self.file = KeyFile(folder / "keys.json")
        self.path = folder / "keys.json"
        self.port = free_port()

    def key(self, *tenants: str, role: ApiRole = ApiRole.CALLER) -> dict[str, str]:
        """Headers with a new key."""
        key, text = new_key(Asker("test", role, frozenset(tenants) or None))
        self.file.add(key)
        return {"authorization": f"Bearer {text}"}

    def environment(self) -> dict[str, str]:
        """Of a pod."""
        return {
            "ROUTER_API": "on",
            "ROUTER_API_HOST": "127.0.0.1",
            "ROUTER_API_PORT": str(self.port),
            "ROUTER_API_KEYS_FILE": str(self.path),
            "ROUTER_SECRETS_POLL": "100ms",
        }

    async def ask(self, method: str, path: str, content: object = b"", **headers: str) -> HttpReply:
        """One request over a connection of its own."""
        async with await HttpClient.to(self.port) as client:
            return await client.ask(method, path, content, **headers)


async def started(own: Own, folder: Path, **env: str) -> tuple[Api, Fleet]:
    """One pod with an API."""
    api = Api(folder)
    api.key("nobody")  # the file is there
    fleet, _ = await own(pods=1, policies=POLICIES, env=api.environment() | env)
    return api, fleet


async def test_one_identity_is_one_decision_over_both_doors(own: Own, tmp_path: Path) -> None:
    """Asked over HTTP, repeated over NATS, looked up over HTTP; a foreign tenant finds nothing."""
    api = Api(tmp_path)
    acme, globex = api.key("acme"), api.key("globex")
    _, caller = await own(pods=1, policies=POLICIES, env=api.environment())
    reply = await api.ask("POST", "/v1/decide", body("r1"), **acme)
    assert reply.status == 200, reply.body
    decision = reply.json["decision"]
    over_nats = (await caller.ask(body("r1"))).body
    assert over_nats["context"]["replayed"] is True
    assert over_nats["decision"] == decision
    path = f"/v1/decisions/{decision['decision_id']}"
    assert (await api.ask("GET", path, **acme)).json["decision"] == decision
    assert (await api.ask("GET", path, **globex)).status == 404


async def test_no_spelling_of_the_tenant_passes_a_key(own: Own, tmp_path: Path) -> None:
    """Names twice, with escapes, in other places, in headers: decided for the key's own tenant, or refused."""
    api, fleet = await started(own, tmp_path)
    acme = api.key("acme")
    two = api.key("acme", "nobody")
    await until(lambda: _accepted(api, acme), 30, "the new keys are in use")
    await until(lambda: _accepted(api, two), 30, "the new keys are in use")
    plain = orjson.dumps(body("x", "globex"))
    tries = [
        plain,
        plain.replace(b'"tenant_id":"globex"', b'"tenant_id":"acme","tenant_id":"globex"'),
        plain.replace(b'"tenant_id":"globex"', b'"tenant_id":"globex","tenant_id":"acme"'),
        plain.replace(b'"tenant_id"', b'"tenant\\u005fid"'),
        plain.replace(b"globex", b"gl\\u006fbex"),
        b"\xef\xbb\xbf" + plain,
        plain.replace(b'"chat"', b'"\\ud83d"'),
        orjson.dumps({"version": "1", "request_id": "x", "message": {"tenant_id": "globex"}}),
        orjson.dumps({"version": "1", "request_id": "x", "tenant_id": "acme", "message": {"tenant_id": "globex"}}),
        orjson.dumps({"from": "a", "to": "b", "message_id": "x", "tenant_id": "globex", "input": {}}),
    ]
    for headers in (acme, two):
        for data in tries:
            for more in ({}, {"tenant_id": "globex"}, {"content_type": "application/x-protobuf"}):
                reply = await api.ask("POST", "/v1/decide", data, **headers, **more)
                assert reply.status in (200, 400, 401), reply.body
    assert not [entry for entry in await fleet.audit("globex") if entry.action.startswith("decision")]


async def _accepted(api: Api, headers: dict[str, str]) -> bool:
    return (await api.ask("GET", "/v1/decisions/x", **headers)).status != 401


async def test_keys_follow_their_file(own: Own, tmp_path: Path) -> None:
    """A new key works and a revoked one does not, without a restart; half a file changes nothing and is said."""
    api, fleet = await started(own, tmp_path)
    (pod,) = fleet.pods
    headers = api.key("acme")
    await until(lambda: _accepted(api, headers), 30, "the new key is in use")
    good = api.path.read_bytes()
    api.path.write_bytes(good[: len(good) // 2])

    async def degraded() -> bool:
        return "api" in (await pod.readyz())[1]["degraded"]

    await until(degraded, 30, "the broken file is said")
    assert await _accepted(api, headers)
    api.path.write_bytes(good)
    for key in api.file.entries():
        api.file.remove(key.id)

    async def refused() -> bool:
        return not await _accepted(api, headers)

    await until(refused, 30, "the revoked key is refused")
    assert not await degraded()


async def test_without_its_keys_the_api_waits_and_the_pod_serves(own: Own, tmp_path: Path) -> None:
    """Ready, with the reason; the API opens when the file is there."""
    api = Api(tmp_path)
    fleet, caller = await own(pods=1, policies=POLICIES, env=api.environment())
    _, shown = await fleet.pods[0].readyz()
    assert "keys.json" in shown["degraded_reasons"]["api"]
    assert ((await caller.ask(body("r1"))).body)["ok"]
    headers = api.key("acme")

    async def opened() -> bool:
        try:
            return (await api.ask("POST", "/v1/decide", body("r2"), **headers)).status == 200
        except OSError:
            return False

    await until(opened, 30, "the API opens")


async def test_a_pod_that_ends_answers_what_it_accepted(own: Own, tmp_path: Path) -> None:
    """SIGTERM under load: each request that was read has its answer, and a decision is made once."""
    api, fleet = await started(own, tmp_path)
    headers = api.key("acme")
    await until(lambda: _accepted(api, headers), 30, "the new key is in use")
    answered: list[int] = []
    cut: list[str] = []

    async def load(worker: int) -> None:
        async with await HttpClient.to(api.port) as client:
            for n in range(100_000):
                try:
                    reply = await client.ask("POST", "/v1/decide", body(f"{worker}-{n}"), **headers)
                except (OSError, asyncio.IncompleteReadError) as gone:
                    # A closed connection is fine between requests; half an answer never is.
                    if isinstance(gone, asyncio.IncompleteReadError) and gone.partial:
                        cut.append(repr(gone))
                    return
                answered.append(reply.status)
                if reply.headers.get("connection") == "close":
                    return

    workers = [asyncio.create_task(load(n)) for n in range(8)]
    await until(lambda: len(answered) > 100, 60, "the load runs")
    fleet.pods[0].terminate()
    await asyncio.wait_for(asyncio.gather(*workers), 60)
    assert await fleet.pods[0].ended() == 0
    assert set(answered) == {200}
    assert not cut


async def test_https_takes_a_new_certificate(own: Own, tmp_path: Path) -> None:
    """Clients need one of their own where a CA is named; a changed file is in use for the next connection."""
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    cert, key = tmp_path / "tls.pem", tmp_path / "tls.key"

    def mount(authority: Authority) -> None:
        made = authority.issue("api")
        key.write_bytes(made.key.read_bytes())
        cert.write_bytes(made.cert.read_bytes())

    mount(old)
    api = Api(tmp_path)
    headers = api.key("acme")
    tls = {"ROUTER_API_TLS_CERT": str(cert), "ROUTER_API_TLS_KEY": str(key), "ROUTER_API_TLS_CLIENT_CA": str(old.ca)}
    await own(pods=1, policies=POLICIES, env=api.environment() | tls)
    mine = old.issue("client")

    async def ask(authority: Authority, *, named: bool = True) -> int:
        context = ssl.create_default_context(cafile=authority.ca)
        if named:
            context.load_cert_chain(mine.cert, mine.key)
        try:
            async with await HttpClient.to(api.port, context) as client:
                return (await client.ask("POST", "/v1/decide", body("r1"), **headers)).status
        except (OSError, asyncio.IncompleteReadError):
            return 0

    assert await ask(old) == 200
    assert await ask(old, named=False) == 0
    mount(new)

    async def renewed() -> bool:
        return await ask(new) == 200

    await until(renewed, 30, "the new certificate is in use")


async def test_a_result_over_http_is_metered_once(own: Own, tmp_path: Path) -> None:
    """For a metered decision, reported twice; the caller needs no NATS at all."""
    api = Api(tmp_path)
    headers = api.key("acme")
    _, caller = await own(pods=1, policies=POLICIES, env=api.environment())
    usage = await caller.watch("beamline.usage.v1.metered")
    decided = await api.ask("POST", "/v1/decide", body("r1") | {"options": {"meter": True}}, **headers)
    decision = decided.json["decision"]
    result = {
        "version": "1",
        "tenant_id": "acme",
        "decision_id": decision["decision_id"],
        "request_id": "r1",
        "status": "success",
        "provider_id": decision["provider_id"],
        "job": {"type": "chat"},
        "latency_ms": 5,
        "cost": 0.5,
    }
    for _ in range(2):
        reply = await api.ask("POST", "/v1/results", result, **headers)
        assert (reply.status, reply.json) == (202, {"ok": True})
    metered = await usage.one(tenant_id="acme")
    assert (metered["usage_id"], metered["cost"]) == (decision["decision_id"], 0.5)


async def test_a_task_is_run_and_its_end_is_told(own: Own, tmp_path: Path) -> None:
    """Pushed with `Prefer: wait`, looked up, and not found by another tenant; a repeat gets the same end."""
    api = Api(tmp_path)
    acme, globex = api.key("acme"), api.key("globex")
    fleet, _ = await own(pods=1, policies=POLICIES, env=api.environment())
    async with Foreign(fleet.nats.url) as workers:
        await Worker(workers).start()
        for _ in range(2):
            reply = await api.ask("POST", "/v1/tasks", body("r1"), prefer="wait=30", **acme)
            assert reply.status == 200, reply.body
            assert (reply.json["ok"], reply.json["status"]) == (True, "success")
        address = reply.headers["location"]
        task = (await api.ask("GET", address, **acme)).json["task"]
        assert (task["request_id"], task["state"]) == ("r1", "succeeded")
        assert (await api.ask("GET", address, **globex)).status == 404
        assert (await api.ask("GET", "/v1/tasks/ffffffff-0000-4000-8000-000000000001", **acme)).status == 404


async def test_a_pod_that_ends_does_not_wait_for_tasks(own: Own, tmp_path: Path) -> None:
    """A client that waits a minute gets 202 at SIGTERM, long before the drain is over."""
    api, fleet = await started(own, tmp_path)
    headers = api.key("acme")
    await until(lambda: _accepted(api, headers), 30, "the new key is in use")
    asked = asyncio.create_task(api.ask("POST", "/v1/tasks", body("r1"), prefer="wait=60", **headers))

    async def pushed() -> bool:
        return "assignment.published" in await fleet.actions("acme", "r1")

    await until(pushed, 30, "the task is pushed")
    fleet.pods[0].terminate()
    reply = await asyncio.wait_for(asked, 15)
    assert (reply.status, reply.headers["preference-applied"]) == (202, "wait=60")
    assert await fleet.pods[0].ended() == 0
