"""Credentials that change while pods run: mounted files first or last."""

import asyncio
from pathlib import Path

import nkeys  # type: ignore[import-untyped]  # it carries no types

from tests.chaos.world import World
from tests.fleet.harness import Pod, until
from tests.mounts import mounted
from tests.nats_jwt import pair
from tests.servers import NatsProcess, ValkeyProcess
from tests.survive.arena import Arena
from tests.survive.load import PATIENCE_S
from tests.survive.row import ALWAYS, Row, Setup

_SEE = "rotate-secrets"
_OLD, _NEW = (f"{age}-secret-of-the-pods-0123456789abcdef" for age in ("old", "new"))
_POLL = {"ROUTER_SECRETS_POLL": "500ms"}
_CALLERS = "{ user: callers, password: callers }"
_TAKES_S = 60


class _NatsByNkey(NatsProcess):
    """Pods are a user by nkey; all others log in without a name and may do everything."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.keys = [pair(nkeys.PREFIX_BYTE_USER) for _ in range(2)]
        self.extra = self.users(0)

    def users(self, *which: int) -> str:
        """The block of the configuration with these of the two keys."""
        pods = ", ".join(f"{{ nkey: {self.keys[n][1]} }}" for n in which)
        return f"no_auth_user: callers\nauthorization {{ users: [ {_CALLERS}, {pods} ] }}"

    def seed(self, which: int) -> str:
        """What a pod has of a key."""
        return str(self.keys[which][2])


def _valkey(folder: Path) -> ValkeyProcess:
    return ValkeyProcess(folder, args=(*ALWAYS, "--user", "pods", "on", f">{_OLD}", "~*", "&*", "+@all"))


def _password(password: str) -> str:
    return f"no_auth_user: callers\nauthorization {{ users: [ {_CALLERS}, {{ user: pods, password: {password} }} ] }}"


def _redis_login(world: World) -> dict[str, str]:
    file = mounted(world.fleet.folder / "redis-secret", _OLD)
    return _POLL | {"ROUTER_REDIS_USERNAME": "pods", "ROUTER_REDIS_PASSWORD_FILE": str(file)}


def _both_logins(world: World) -> dict[str, str]:
    nats = world.fleet.nats
    assert isinstance(nats, _NatsByNkey)
    file = mounted(world.fleet.folder / "nats-secret", nats.seed(0))
    return _redis_login(world) | {"ROUTER_NATS_NKEY_SEED_FILE": str(file)}


def _nats_login(world: World) -> dict[str, str]:
    file = mounted(world.fleet.folder / "nats-secret", _OLD)
    return _POLL | {"ROUTER_NATS_USER": "pods", "ROUTER_NATS_PASSWORD_FILE": str(file)}


async def _has_rotated(pod: Pod, part: str) -> bool:
    words = ("router_secret_rotations_total", f'part="{part}"', 'outcome="done"')
    return any(value > 0 for name, value in (await pod.metrics()).items() if all(word in name for word in words))


async def _rotated(ground: Arena, part: str) -> None:
    async def done() -> bool:
        found = [await pod.metrics() for pod in ground.pods]
        labels = (f'part="{part}"', 'outcome="done"')
        return all(
            any(
                v and k.startswith("router_secret_rotations_total") and all(x in k for x in labels)
                for k, v in m.items()
            )
            for m in found
        )

    await ground.expect(f"every pod uses the new secret of {part}", until(done, _TAKES_S, "rotated"))


async def _as_documented(ground: Arena) -> None:
    """Both servers get the new credentials beside the old, the files change, the old credentials are removed."""
    nats = ground.fleet.nats
    assert isinstance(nats, _NatsByNkey)
    await ground.fleet.redis("ACL", "SETUSER", "pods", f">{_NEW}")
    await asyncio.to_thread(nats.reload, nats.users(0, 1))
    mounted(ground.fleet.folder / "redis-secret", _NEW)
    mounted(ground.fleet.folder / "nats-secret", nats.seed(1))
    for part in ("redis", "nats"):
        await _rotated(ground, part)
    await ground.fleet.redis("ACL", "SETUSER", "pods", f"<{_OLD}")
    await asyncio.to_thread(nats.reload, nats.users(1))
    await asyncio.sleep(2)
    logs = "".join(pod.log.read_text() for pod in ground.pods)
    ground.check("no secret is in a log", not any(s in logs for s in (_OLD, _NEW, nats.seed(0), nats.seed(1))))


async def _redis_first(ground: Arena) -> None:
    """Redis forgets the old password and cuts its connections; the file has the new one 3 s later."""
    await ground.fleet.redis("ACL", "SETUSER", "pods", f">{_NEW}", f"<{_OLD}")
    await ground.fleet.redis("CLIENT", "KILL", "USER", "pods")
    await asyncio.sleep(3)

    def said() -> bool:
        return any("invalid username-password pair" in str(pod.logged("store.away")) for pod in ground.pods)

    await ground.expect("the log says that the password is wrong", until(said, _TAKES_S, "said"))
    mounted(ground.fleet.folder / "redis-secret", _NEW)


async def _nats_first(ground: Arena) -> None:
    """NATS forgets the old password and closes the pods' connections; the file has the new one 3 s later."""
    await asyncio.to_thread(ground.fleet.nats.reload, _password(_NEW))
    await asyncio.sleep(3)
    mounted(ground.fleet.folder / "nats-secret", _NEW)


ROWS = (
    Row(
        name="files.secrets_rotated",
        fault="the password of Redis and the nkey of NATS replaced: added, mounted, the old ones removed",
        promise="used without a restart; no caller notices",
        see=_SEE,
        act=_as_documented,
        served=1.0,
        setup=Setup(valkey=_valkey, nats=_NatsByNkey, servers_env=_both_logins),
    ),
    Row(
        name="redis.password_changed",
        fault="the password of Redis changed in the server only; the mounted file follows 3 s later",
        promise="`unavailable` until the file has it; no restart; nothing is lost or doubled",
        see=_SEE,
        act=_redis_first,
        recover_s=15.0,
        setup=Setup(valkey=_valkey, servers_env=_redis_login),
    ),
    Row(
        name="nats.password_changed",
        fault="the password of NATS changed in the server only; the mounted file follows 3 s later",
        promise="pods receive nothing until the file has it; no restart; nothing is lost or doubled",
        see=_SEE,
        act=_nats_first,
        worst_s=PATIENCE_S,
        hung=20,
        recover_s=15.0,
        setup=Setup(nats=lambda folder: NatsProcess(folder, extra=_password(_OLD)), servers_env=_nats_login),
    ),
)
