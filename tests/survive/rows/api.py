"""The HTTP API: connections that are held, pods that end under its load, and guessed keys."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from router.domain.api_key import ApiRole, Asker
from router.edge.api.key_file import KeyFile, new_key
from tests.chaos.world import World
from tests.fleet.harness import Pod, until
from tests.http_client import HttpClient
from tests.survive.arena import Arena
from tests.survive.row import Row, Setup

_SEE = "the-http-api"
_IDLE = 1_000
_CLIENTS = 8
_GUESSES = 10


def _api(world: World) -> dict[str, str]:
    file = world.fleet.folder / "api_keys.json"
    KeyFile(file).add(new_key(Asker("nobody", ApiRole.CALLER, frozenset({"nobody"})))[0])
    return {
        "ROUTER_API": "on",
        "ROUTER_API_HOST": "127.0.0.1",
        "ROUTER_API_PORT": "0",
        "ROUTER_API_KEYS_FILE": str(file),
        "ROUTER_SECRETS_POLL": "200ms",
    }


_SETUP = Setup(servers_env=_api)


def _port(pod: Pod) -> int:
    """The port of the API; the management port listens first."""
    return int(pod.logged("http.listening")[-1]["port"])


class _Caller:
    """A tenant of its own, and its key."""

    def __init__(self, tenant: str, key: str) -> None:
        self.tenant = tenant
        self.headers = {"authorization": f"Bearer {key}"}

    def body(self, request_id: str) -> dict[str, object]:
        """A request."""
        return {"version": "1", "tenant_id": self.tenant, "request_id": request_id, "task": {"type": "chat"}}

    async def is_known(self, pod: Pod) -> bool:
        """Whether the pod accepts the key."""
        try:
            async with await HttpClient.to(_port(pod)) as client:
                return (await client.ask("GET", "/v1/tasks/x", **self.headers)).status != 401
        except (OSError, asyncio.IncompleteReadError):
            return False


@asynccontextmanager
async def _caller(ground: Arena) -> AsyncIterator[_Caller]:
    tenant = await ground.fleet.tenant()
    key, text = new_key(Asker("survive", ApiRole.CALLER, frozenset({tenant})))
    KeyFile(ground.fleet.folder / "api_keys.json").add(key)
    caller = _Caller(tenant, text)
    for pod in ground.pods:
        await until(partial(caller.is_known, pod), 30, f"{pod.name} knows the key")
    yield caller


async def _idle(ground: Arena) -> None:
    """1,000 connections to one pod's API, every second one with half a request."""
    pod = ground.pods[0]
    held: list[socket.socket] = []
    async with _caller(ground) as caller:
        try:
            for number in range(_IDLE):
                connection = socket.create_connection(("127.0.0.1", _port(pod)), timeout=5)
                held.append(connection)
                if number % 2:
                    connection.sendall(b"POST /v1/decide HTTP/1.1\r\nHost: po")
                if number % 50 == 0:
                    await asyncio.sleep(0.01)
            began = time.monotonic()
            async with await HttpClient.to(_port(pod)) as client:
                reply = await client.ask("POST", "/v1/decide", caller.body("idle"), **caller.headers)
            took = time.monotonic() - began
            ground.check(f"a decision within a second ({reply.status}, {took:.2f} s)", reply.status == 200)
            status, _ = await pod.http("/livez")
            ground.check("the probe is answered", status == 200 and time.monotonic() - began < 2 + ground.slack_s)
        finally:
            for connection in held:
                connection.close()


async def _ended(ground: Arena) -> None:
    """Every pod in turn ends by SIGTERM while clients ask over HTTP; what is cut off is asked again, elsewhere."""
    stop = asyncio.Event()
    half: list[str] = []
    statuses: list[int] = []
    asked = 0

    async def load(caller: _Caller, worker: int) -> int:
        number = turn = 0
        while not stop.is_set():
            turn += 1
            try:
                async with await HttpClient.to(_port(ground.pods[(worker + turn) % len(ground.pods)])) as client:
                    while not stop.is_set():
                        reply = await client.ask(
                            "POST", "/v1/decide", caller.body(f"{worker}-{number}"), **caller.headers
                        )
                        statuses.append(reply.status)
                        number += 1
                        if reply.headers.get("connection") == "close":
                            break
                        await asyncio.sleep(0.01)
            except asyncio.IncompleteReadError as cut:
                half.extend([repr(cut)] if cut.partial else [])
            except OSError:
                await asyncio.sleep(0.05)
        return number

    async with _caller(ground) as caller:
        workers = [asyncio.create_task(load(caller, n)) for n in range(_CLIENTS)]
        try:
            for pod in list(ground.pods):
                await asyncio.sleep(0.5)
                ground.check(f"{pod.name} ends with 0 after SIGTERM", await pod.stop() == 0)
                await pod.start()
        finally:
            stop.set()
            asked = sum(await asyncio.gather(*workers))
        decided = sum(entry.action == "decision.made" for entry in await ground.fleet.audit(caller.tenant))
    ground.told.append(f"{asked:,} requests over HTTP, {decided:,} decisions")
    ground.check("no answer was cut in half", not half)
    ground.check("every answer is a decision", set(statuses) == {200})
    # A request that was cut off when the load ended may have been decided.
    ground.check("each request was decided once", asked <= decided <= asked + _CLIENTS)


async def _wrong_keys(ground: Arena) -> None:
    """Guessed keys over 300 connections: up to 64 of a pod are slowed down, the others are refused at once."""
    statuses: list[int] = []

    async def guess(pod: Pod) -> None:
        async with await HttpClient.to(_port(pod)) as client:
            for number in range(_GUESSES):
                reply = await client.ask("POST", "/v1/decide", b"{}", x_api_key=f"rk_{number:012x}_{number:043}")
                statuses.append(reply.status)

    await asyncio.gather(*(guess(pod) for pod in ground.pods for _ in range(100)))
    ground.check("every guess is refused", set(statuses) <= {401, 429})
    size = max(pod.log.stat().st_size for pod in ground.pods)
    ground.check(f"the log stays small ({size:,} bytes)", size < 200_000)


ROWS = (
    Row(
        name="api.idle",
        fault="1,000 idle and half-sent connections to a pod's API port",
        promise="requests and probes are answered within a second; decisions continue",
        see=_SEE,
        act=_idle,
        served=0.99,
        setup=_SETUP,
    ),
    Row(
        name="api.terminated",
        fault="every pod in turn ended by SIGTERM under a load over HTTP",
        promise="each request that was read is answered, and decided once; no caller notices",
        see=_SEE,
        act=_ended,
        served=0.98,
        setup=_SETUP,
        short=True,
    ),
    Row(
        name="api.wrong_keys",
        fault="3,000 guessed API keys",
        promise="refused slowly, with one log line a minute; other callers notice nothing",
        see="routerapikeysguessed",
        act=_wrong_keys,
        served=0.98,
        setup=_SETUP,
    ),
)
