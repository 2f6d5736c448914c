"""The local fleet: Valkey, NATS, pods and a worker, each a process of its own, data and logs in one folder.

A lock gives the folder to one fleet at a time. The folder keeps its data over restarts. A pod or worker that dies is
reported and started again, up to five times a minute; beyond that, and when a server dies, the fleet gives up.
"""

import asyncio
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from router.installed_files import examples_dir
from router.local import servers
from router.local.folder import ADMIN_TOKEN, API_KEYS, CP_STATE, Folder
from router.local.processes import Child, LocalError, spawn, talk, until_ready

POD_READY_S = 60.0
RESTARTS, RESTARTS_WITHIN_S = 5, 60.0
TASK_ALIASES = ("chat=echo", "completion=echo", "embedding=echo")

# The fleet sets these for its pods; values from the caller's environment would contradict them.
_OURS = (
    "ROUTER_NATS_",
    "ROUTER_REDIS_",
    "ROUTER_ADMIN_",
    "ROUTER_HTTP_",
    "ROUTER_API",
    "ROUTER_POD_",
    "ROUTER_POLICY_",
    "ROUTER_CP_",
    "ROUTER_STORE_SCHEMA",
    "ROUTER_PARTITIONS",
    "ROUTER_STREAM_",
)

# Servers, pods, worker and callers share the cores of one machine, so a healthy call takes longer than in production.
_PATIENT = {"ROUTER_STORE_DEADLINE": "250ms"}

Say = Callable[[str], None]


class Options(Struct, frozen=True):
    """Folder, size and ports. `http_port` and `api_port` are the first pod's, if they are free."""

    data: Path
    http_port: int = 8080
    api_port: int = 8180
    pods: int = 2


class Pod:
    """One pod: its name, its addresses, and the process that runs it now."""

    def __init__(self, name: str, port: int, api_port: int) -> None:
        self.name = name
        self.port = port
        self.api_port = api_port
        self.child: Child | None = None

    @property
    def http(self) -> str:
        """Base URL of the management port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        """Base URL of the API."""
        return f"http://127.0.0.1:{self.api_port}/v1"


class Fleet:
    """`async with Fleet(options, say) as fleet`: started on entry; on exit always stopped in order."""

    def __init__(self, options: Options, say: Say) -> None:
        self._options = options
        self._say = say
        self.data = options.data.resolve()
        self._folder = Folder(self.data)
        self.pods: list[Pod] = []
        self.tenants = sorted(p.name for p in (examples_dir() / "policies").iterdir() if p.is_dir())
        self.admin_token = secrets.token_urlsafe(24)
        self.api_key = ""
        self.nats_url = ""
        self.redis_url = ""
        self._servers: list[Child] = []
        self._worker: Child | None = None
        self._starts: dict[str, deque[float]] = {}

    async def __aenter__(self) -> Self:
        try:
            self._folder.claim()
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._stop()

    def ready(self) -> dict[str, object]:
        """The facts of the READY line."""
        return {
            "nats": self.nats_url,
            "redis": self.redis_url,
            "http": self.pods[0].http,
            "api": self.pods[0].api,
            "api_key": self.api_key,
            "pods": [p.http for p in self.pods],
            "tenants": self.tenants,
            "admin_token": self.admin_token,
        }

    def publish_ready(self) -> None:
        """Write the READY facts to the file that other commands read; only this user can read it."""
        self._folder.write_ready(self.ready())

    async def watch(self) -> None:
        """Restart processes that die. Never returns.

        :raises LocalError: a server died, or a pod or the worker died too often.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(self._watch_server(server))
                for pod in self.pods:
                    group.create_task(self._watch_pod(pod))
                group.create_task(self._watch_worker())
        except ExceptionGroup as group_of_one:
            raise group_of_one.exceptions[0] from None

    async def _start(self) -> None:
        self._say("starting Valkey and NATS")
        results = await asyncio.gather(
            servers.start_valkey(self.data), servers.start_nats(self.data), return_exceptions=True
        )
        self._servers = [r.child for r in results if isinstance(r, servers.Server)]
        valkey, nats = (_or_raise(r) for r in results)
        self.redis_url = f"redis://127.0.0.1:{valkey.port}/0"
        self.nats_url = f"nats://127.0.0.1:{nats.port}"
        self._folder.write_state(self.admin_token)
        self.api_key = self._folder.api_key()
        taken: list[int] = []
        for n in range(self._options.pods):
            ports = []
            for preferred in (self._options.http_port, self._options.api_port):
                ports.append(servers.free_port(preferred + n, taken=taken))
                taken.append(ports[-1])
            self.pods.append(Pod(f"router-{n + 1}", *ports))
        self._say(f"starting {len(self.pods)} pods")
        await asyncio.gather(*(self._start_pod(p) for p in self.pods))
        self._say("starting the example worker")
        await self._start_worker()

    async def _start_pod(self, pod: Pod) -> None:
        self._count_start(pod.name)
        log = self.data / f"{pod.name}.log"
        pod.child = await spawn(pod.name, _router("serve"), log, self._environment(pod))
        reasons = b""

        async def ready() -> bool:
            nonlocal reasons
            answer = await talk(pod.port, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            reasons = answer.partition(b"\r\n\r\n")[2] or reasons
            return answer.startswith(b"HTTP/1.1 200")

        try:
            await until_ready(pod.child, ready, POD_READY_S)
        except LocalError as e:
            raise LocalError(f"{e}\nlast answer of /readyz: {reasons.decode(errors='replace') or 'nothing'}") from e

    async def _start_worker(self) -> None:
        self._count_start("worker")
        aliases = [word for alias in TASK_ALIASES for word in ("--alias", alias)]
        command = _router("worker", "--nats", self.nats_url, "--name", "local-worker", *aliases)
        self._worker = await spawn("worker", command, self.data / "worker.log")

    def _count_start(self, name: str) -> None:
        starts = self._starts.setdefault(name, deque())
        now = time.monotonic()
        while starts and now - starts[0] > RESTARTS_WITHIN_S:
            starts.popleft()
        if len(starts) > RESTARTS:
            raise LocalError(f"{name} died {RESTARTS} times within {RESTARTS_WITHIN_S:g} s; see {self.data / name}.log")
        starts.append(now)

    def _environment(self, pod: Pod) -> Mapping[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        return (
            _PATIENT
            | inherited
            | {
                "ROUTER_POD_NAME": pod.name,
                "ROUTER_NATS_URL": self.nats_url,
                "ROUTER_REDIS_URL": self.redis_url,
                "ROUTER_HTTP_HOST": "127.0.0.1",
                "ROUTER_HTTP_PORT": str(pod.port),
                "ROUTER_API": "on",
                "ROUTER_API_HOST": "127.0.0.1",
                "ROUTER_API_PORT": str(pod.api_port),
                "ROUTER_API_KEYS_FILE": str(self.data / API_KEYS),
                "ROUTER_POLICY_DIR": str(examples_dir() / "policies"),
                "ROUTER_CP_STATE_PATH": str(self.data / CP_STATE),
                "ROUTER_ADMIN_TOKEN_FILE": str(self.data / ADMIN_TOKEN),
                "ROUTER_ADMIN_NATS_READ": "open",
            }
        )

    async def _watch_server(self, server: Child) -> None:
        code = await server.ended()
        if not server.stopping:
            raise LocalError(f"{server.name} ended with code {code}; from {server.log}:\n{server.tail()}")

    async def _watch_pod(self, pod: Pod) -> None:
        while pod.child is not None:
            child = pod.child
            code = await child.ended()
            if child.stopping:
                return
            self._say(f"{pod.name} ended with code {code}: starting it again (log: {child.log})")
            await self._start_pod(pod)
            self._say(f"{pod.name} is ready again")

    async def _watch_worker(self) -> None:
        while self._worker is not None:
            child = self._worker
            code = await child.ended()
            if child.stopping:
                return
            self._say(f"the worker ended with code {code}: starting it again (log: {child.log})")
            await self._start_worker()

    async def _stop(self) -> None:
        """Stop the worker, then the pods, then the servers, which the others need for their drain."""
        clients = [c for c in (self._worker, *(p.child for p in self.pods)) if c is not None]
        await asyncio.gather(*(c.stop() for c in clients))
        await asyncio.gather(*(c.stop() for c in self._servers))
        self._folder.release()


def _router(*arguments: str) -> list[str]:
    # -P: a folder called router in the caller's working folder must not be taken for the package.
    return [sys.executable, "-P", "-m", "router", *arguments]


def _or_raise(result: servers.Server | BaseException) -> servers.Server:
    if isinstance(result, BaseException):
        raise result
    return result
