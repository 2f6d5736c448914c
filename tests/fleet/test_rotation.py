"""Rotation without a restart: files that pods have mounted change under load, and no request is lost."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import orjson

from router.domain.access import Party
from router.store.servers.rights import Server, acl_rules
from tests.fleet.conftest import Own
from tests.fleet.foreign import Foreign, Reply, task
from tests.fleet.harness import PLAIN, Fleet, until
from tests.mounts import mounted
from tests.servers import NatsProcess, ValkeyProcess

POLICIES = {"acme": {"default": PLAIN}}
EVERY_S = 0.01
OLD, NEW = "old-secret-of-the-pods-0123456789abcdef", "new-secret-of-the-pods-0123456789abcdef"
POLL = {"ROUTER_SECRETS_POLL": "100ms", "ROUTER_STORE_DEADLINE": "5s"}


class _WithUser(ValkeyProcess):
    """A Valkey with the user `pods`, as whom pods log in by their settings, with the rights of a pod."""

    def __init__(self, data: Path) -> None:
        super().__init__(data, args=("--user", "pods", "on", f">{OLD}", *acl_rules(Party.POD, Server()).split()))

    @property
    def pod_url(self) -> str:
        """The address for pods, without a login."""
        return self.url


class Load:
    """A steady caller."""

    def __init__(self, caller: Foreign) -> None:
        self._caller = caller
        self.asked: list[asyncio.Future[Reply]] = []

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            self.asked.append(await self._caller.send(orjson.dumps(task("acme"))))
            await asyncio.sleep(EVERY_S)

    async def more(self) -> None:
        """Wait for further requests."""
        enough = len(self.asked) + 50
        await until(lambda: len(self.asked) > enough, 20, "load")

    async def all_decided(self) -> None:
        """Every request has a decision."""
        replies = await asyncio.wait_for(asyncio.gather(*self.asked), 20)
        assert [r.error for r in replies if not r.ok] == []


async def _rotated(fleet: Fleet, part: str, outcome: str, times: int = 1) -> None:
    name = f'router_secret_rotations_total{{outcome="{outcome}",part="{part}"}}'
    other = f'router_secret_rotations_total{{part="{part}",outcome="{outcome}"}}'

    async def all_pods() -> bool:
        found = [await pod.metrics() for pod in fleet.pods]
        return all(m.get(name, m.get(other, 0)) >= times for m in found)

    await until(all_pods, 20, f"{part} {outcome} on every pod")


async def test_the_password_of_redis(own: Own, tmp_path: Path) -> None:
    """File first: the pods say what Redis says, and serve on; then the server has it, then the old one is removed."""
    valkey = _WithUser(tmp_path / "valkey")
    secret = mounted(tmp_path / "redis", OLD)
    env = POLL | {"ROUTER_REDIS_USERNAME": "pods", "ROUTER_REDIS_PASSWORD_FILE": str(secret)}
    fleet, caller = await own(pods=2, valkey=valkey, env=env, policies=POLICIES)
    load = Load(caller)
    asking = asyncio.create_task(load.run())
    await load.more()
    mounted(tmp_path / "redis", NEW)
    await _rotated(fleet, "redis", "refused")
    for pod in fleet.pods:
        assert "invalid username-password pair" in str(pod.logged("secrets.refused"))
    await load.more()
    await fleet.redis("ACL", "SETUSER", "pods", f">{NEW}")
    await _rotated(fleet, "redis", "done")
    await fleet.redis("ACL", "SETUSER", "pods", f"<{OLD}")
    await load.more()
    asking.cancel()
    await load.all_decided()
    logs = "".join(pod.log.read_text() for pod in fleet.pods)
    assert OLD not in logs
    assert NEW not in logs


async def test_a_password_that_was_changed_in_redis_only(own: Own, tmp_path: Path) -> None:
    """The server cuts its connections: the log says that the password is wrong; the new file mends it."""
    valkey = _WithUser(tmp_path / "valkey")
    secret = mounted(tmp_path / "redis", OLD)
    env = POLL | {"ROUTER_REDIS_USERNAME": "pods", "ROUTER_REDIS_PASSWORD_FILE": str(secret)}
    fleet, caller = await own(pods=1, valkey=valkey, env=env, policies=POLICIES)
    assert (await caller.ask(task("acme"))).ok
    await fleet.redis("ACL", "SETUSER", "pods", f">{NEW}", f"<{OLD}")
    await fleet.redis("CLIENT", "KILL", "USER", "pods")
    await until(lambda: "invalid username-password pair" in str(fleet.pods[0].logged("store.away")), 10, "the reason")
    assert (await caller.ask(task("acme"))).error["code"] == "unavailable"
    mounted(tmp_path / "redis", NEW)

    async def decides() -> bool:
        return bool((await caller.ask(task("acme"))).ok)

    await until(decides, 15, "decisions again")


def _nats(folder: Path) -> NatsProcess:
    return NatsProcess(folder, extra=_users(OLD))


def _users(password: str) -> str:
    caller, pods = '{ user: "caller", password: "caller" }', f'{{ user: "pods", password: "{password}" }}'
    return f"no_auth_user: caller\nauthorization {{ users: [ {caller}, {pods} ] }}"


def _reload(nats: NatsProcess, password: str) -> None:
    config: Any = nats.data / "nats.conf"
    config.write_text(config.read_text().replace(OLD, password))
    os.kill(nats.pid, signal.SIGHUP)


async def test_the_password_of_nats(own: Own, tmp_path: Path) -> None:
    """File first: the server refuses it, and the pods serve on; then the server changes it, cuts them off, and they
    come back with the new one.
    """
    nats = _nats(tmp_path / "nats")
    secret = mounted(tmp_path / "secret", OLD)
    env = POLL | {"ROUTER_NATS_USER": "pods", "ROUTER_NATS_PASSWORD_FILE": str(secret)}
    fleet, caller = await own(pods=2, nats=nats, env=env, policies=POLICIES)
    load = Load(caller)
    asking = asyncio.create_task(load.run())
    await load.more()
    mounted(tmp_path / "secret", NEW)
    await _rotated(fleet, "nats", "refused")
    for pod in fleet.pods:
        assert "authorization violation" in str(pod.logged("secrets.refused")).lower()
    await load.more()
    asking.cancel()
    await load.all_decided()
    _reload(nats, NEW)
    await _rotated(fleet, "nats", "done")
    await asyncio.gather(*(pod.until_ready() for pod in fleet.pods))
    assert (await caller.ask(task("acme"))).ok


class ByToken(NatsProcess):
    """A NATS that wants a token, which the tests' clients have in their address; pods have it from a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, extra=f'authorization {{ token: "{OLD}" }}')
        self.token = OLD

    @property
    def url(self) -> str:
        return f"nats://{self.token}@127.0.0.1:{self.port}"

    @property
    def pod_url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


async def test_the_token_of_nats(own: Own, tmp_path: Path) -> None:
    """As its password; a bad token of an admin beside it holds nothing up."""
    nats = ByToken(tmp_path / "nats")
    secret, admin = mounted(tmp_path / "secret", OLD), mounted(tmp_path / "admin", OLD)
    env = POLL | {"ROUTER_NATS_TOKEN_FILE": str(secret), "ROUTER_ADMIN_TOKEN_FILE": str(admin)}
    fleet, caller = await own(pods=1, nats=nats, env=env, policies=POLICIES)
    load = Load(caller)
    asking = asyncio.create_task(load.run())
    await load.more()
    mounted(tmp_path / "admin", "short")
    mounted(tmp_path / "secret", NEW)
    for part in ("nats", "admin"):
        await _rotated(fleet, part, "refused")
    assert "authorization violation" in str(fleet.pods[0].logged("secrets.refused")).lower()
    await load.more()
    asking.cancel()
    await load.all_decided()
    _reload(nats, NEW)
    nats.token = NEW
    await _rotated(fleet, "nats", "done")
    await fleet.pods[0].until_ready()
    async with Foreign(nats.url) as other:
        assert (await other.ask(task("acme"))).ok
    logs = "".join(pod.log.read_text() for pod in fleet.pods)
    assert OLD not in logs
    assert NEW not in logs


async def test_the_token_of_an_admin(own: Own, tmp_path: Path) -> None:
    """The new one works, and the old one does not, without a restart; a bad file leaves the old one."""
    secret = mounted(tmp_path / "admin", OLD)
    fleet, caller = await own(
        pods=2, env=POLL | {"ROUTER_VIEWER_TOKEN_FILE": str(secret), "ROUTER_ADMIN_NATS_READ": "token"}
    )

    async def allowed(token: str) -> bool:
        headers = {"authorization": f"Bearer {token}"}
        reply = await caller.ask({}, headers=headers, subject="beamline.router.v1.admin.get_circuit_breaker_states")
        return "unauthorized" not in reply.data.decode()

    assert await allowed(OLD)
    mounted(tmp_path / "admin", "short")
    for pod in fleet.pods:
        await until(lambda pod=pod: pod.logged("secrets.refused"), 10, "the mistake")  # type: ignore[misc]
    assert await allowed(OLD)
    mounted(tmp_path / "admin", NEW)
    await _rotated(fleet, "admin", "done")
    assert await allowed(NEW)
    assert not await allowed(OLD)
