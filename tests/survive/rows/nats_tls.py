"""NATS stops offering TLS: no pod continues in clear text, and no login is sent."""

import asyncio
from pathlib import Path

from tests.bus.client.fake_server import FakeServer
from tests.certificates import Authority
from tests.chaos.world import World
from tests.fleet.harness import until
from tests.servers import NatsProcess, to_its_end
from tests.survive.arena import Arena
from tests.survive.load import PATIENCE_S
from tests.survive.row import Row, Setup

_SEE = "the-account-of-a-fleet-on-nats"
_USER, _PASSWORD = "pods", "password-of-the-pods"
_USERS = (
    "no_auth_user: callers\nauthorization { users: [ { user: callers, password: callers }, "
    f"{{ user: {_USER}, password: {_PASSWORD} }} ] }}\n"
)
_SAID_S = 60
_WORDS = "offers no TLS"


class _NatsOverTls(NatsProcess):
    """Pods use TLS; callers and workers, who log in without a name, need not."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.authority = Authority(data / "authority")
        own = self.authority.issue("server")
        self.over_tls = f"{_USERS}tls {{ cert_file: '{own.cert}', key_file: '{own.key}' }}\nallow_non_tls: true"
        self.in_clear = _USERS
        self.extra = self.over_tls


def _nats(world: World) -> _NatsOverTls:
    assert isinstance(world.fleet.nats, _NatsOverTls)
    return world.fleet.nats


def _by_tls(world: World) -> dict[str, str]:
    return {
        "ROUTER_NATS_URL": f"tls://127.0.0.1:{world.nats.port}",
        "ROUTER_NATS_TLS_CA": str(_nats(world).authority.ca),
        "ROUTER_NATS_USER": _USER,
        "ROUTER_NATS_PASSWORD": _PASSWORD,
    }


async def _pods_say_it(ground: Arena) -> None:
    def said() -> bool:
        return all(_WORDS in pod.log.read_text() for pod in ground.pods)

    await ground.expect(f"the log of every pod says `{_WORDS}`", until(said, _SAID_S, "said"))


async def _in_between(ground: Arena) -> None:
    """Somebody takes the pods' connections over and offers no TLS; what comes is recorded."""
    async with FakeServer({"auth_required": True}) as stranger:
        ground.world.nats.lead_to(stranger.port)
        await ground.world.nats.end(None, after_bytes=0, upstream=False, hold_s=0, half=False)
        await _pods_say_it(ground)
        await stranger.until(lambda s: s.ended >= 2 * len(ground.pods), _SAID_S)
        heard = bytes(stranger.clear)
        ground.check(f"not a byte goes to a server without TLS ({heard[:40]!r})", not heard)
        ground.told.append(f"{stranger.accepted} connections to a server without TLS, {len(heard)} bytes sent")
        ground.world.nats.lead_to(ground.fleet.nats.port)


async def _server_without(ground: Arena) -> None:
    """The server is started again without TLS, and 3 s later with it."""
    nats = _nats(ground.world)
    await to_its_end(nats.kill)
    nats.extra = nats.in_clear
    await to_its_end(nats.start)
    await _pods_say_it(ground)
    await asyncio.sleep(3)
    connections = [not (await pod.metrics()).get("router_nats_connected") for pod in ground.pods]
    ground.check("no pod is connected", all(connections))
    await to_its_end(nats.kill)
    nats.extra = nats.over_tls
    await to_its_end(nats.start)


_SETUP = Setup(nats=_NatsOverTls, servers_env=_by_tls, workers_direct=True)

ROWS = (
    Row(
        name="nats.tls_stripped",
        fault="somebody in between takes TLS to NATS away",
        promise="no pod sends a byte without TLS; what was asked is answered when TLS is back, or asked again",
        see=_SEE,
        act=_in_between,
        worst_s=PATIENCE_S,
        hung=20,
        recover_s=15.0,
        setup=_SETUP,
    ),
    Row(
        name="nats.tls_lost",
        fault="NATS started again without TLS, and later with it",
        promise="no pod connects without TLS; what was asked is answered when TLS is back, or asked again",
        see=_SEE,
        act=_server_without,
        worst_s=PATIENCE_S,
        hung=50,
        recover_s=15.0,
        setup=_SETUP,
    ),
)
