"""The local fleet: Valkey, NATS, pods and a worker, each a process of its own, data and logs in one folder.

The folder belongs to one fleet at a time (a lock says so) and keeps its data over restarts. A pod or worker that dies
is reported and started again, up to five times a minute; beyond that, and when a server dies, the fleet gives up.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import orjson
from msgspec import Struct

from router.local import servers
from router.local.processes import Child, LocalError, spawn, talk, until_ready
from router.resources import examples_dir

READY_FILE = "ready.json"
POD_READY_S = 60.0
RESTARTS, RESTARTS_WITHIN_S = 5, 60.0
TASK_ALIASES = ("chat=echo", "completion=echo", "embedding=echo")

# A pod takes these from us; what the caller's environment says of them would contradict.
_OURS = (
    "ROUTER_NATS_",
    "ROUTER_REDIS_",
    "ROUTER_ADMIN_",
    "ROUTER_HTTP_",
    "ROUTER_POD_",
    "ROUTER_POLICY_",
    "ROUTER_CP_",
    "ROUTER_STORE_SCHEMA",
    "ROUTER_PARTITIONS",
    "ROUTER_STREAM_",
)

Say = Callable[[str], None]


class Options(Struct, frozen=True):
    """Where and how large. `http_port` is the first pod's, if it is free."""

    data: Path
    http_port: int = 8080
    pods: int = 2


class Pod:
    """One pod: its name, its address, and the process that runs it now."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.child: Child | None = None

    @property
    def http(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"


class Fleet:
    """`async with Fleet(options, say) as fleet`: started on entry, stopped in order on exit, whatever happened."""

    def __init__(self, options: Options, say: Say) -> None:
        self._options = options
        self._say = say
        self.data = options.data.resolve()
        self.pods: list[Pod] = []
        self.tenants = sorted(p.name for p in (examples_dir() / "policies").iterdir() if p.is_dir())
        self.admin_token = secrets.token_urlsafe(24)
        self.nats_url = ""
        self.redis_url = ""
        self._lock: IO[str] | None = None
        self._servers: list[Child] = []
        self._worker: Child | None = None
        self._starts: dict[str, deque[float]] = {}

    async def __aenter__(self) -> Self:
        try:
            self._claim_folder()
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._stop()

    def ready(self) -> dict[str, object]:
        """What the READY line says."""
        return {
            "nats": self.nats_url,
            "redis": self.redis_url,
            "http": self.pods[0].http,
            "pods": [p.http for p in self.pods],
            "tenants": self.tenants,
            "admin_token": self.admin_token,
        }

    def publish_ready(self) -> None:
        """Write the READY facts where `router decide` and friends look for them; only this user can read the file."""
        _write_private(self.data / READY_FILE, orjson.dumps(self.ready()))

    async def watch(self) -> None:
        """Start again what dies. Never returns.

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
        self._write_state()
        for n in range(self._options.pods):
            port = servers.free_port(self._options.http_port + n, taken=[p.port for p in self.pods])
            self.pods.append(Pod(f"router-{n + 1}", port))
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
            raise LocalError(f"{e}\n/readyz said last: {reasons.decode(errors='replace') or 'nothing'}") from e

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
        return inherited | {
            "ROUTER_POD_NAME": pod.name,
            "ROUTER_NATS_URL": self.nats_url,
            "ROUTER_REDIS_URL": self.redis_url,
            "ROUTER_HTTP_HOST": "127.0.0.1",
            "ROUTER_HTTP_PORT": str(pod.port),
            "ROUTER_POLICY_DIR": str(examples_dir() / "policies"),
            "ROUTER_CP_STATE_PATH": str(self.data / "cp_state.json"),
            "ROUTER_ADMIN_TOKEN_FILE": str(self.data / "admin_token"),
            "ROUTER_ADMIN_NATS_READ": "open",
        }

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
        """Callers first: worker, pods, then the servers they need for their drain."""
        with contextlib.suppress(FileNotFoundError):
            (self.data / READY_FILE).unlink()
        clients = [c for c in (self._worker, *(p.child for p in self.pods)) if c is not None]
        await asyncio.gather(*(c.stop() for c in clients))
        await asyncio.gather(*(c.stop() for c in self._servers))
        if self._lock is not None:
            self._lock.close()

    def _claim_folder(self) -> None:
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            # Append mode: the pid in it is the holder's until the lock is ours.
            lock = (self.data / "lock").open("a+")
        except OSError as e:
            raise LocalError(f"{self.data} cannot be used ({e.strerror}): name another folder with --data-dir") from e
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            lock.seek(0)
            holder = lock.read().strip() or "?"
            lock.close()
            raise LocalError(
                f"another fleet (pid {holder}) runs in {self.data}: stop it, or name another folder with --data-dir"
            ) from e
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _write_state(self) -> None:
        state = {
            "project": "router-local",
            "version": "1",
            "current_cp": "CP2-LC",
            "no_drift": True,
            "agents": [],
            "artifact_checksums": [],
            "updated_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        (self.data / "cp_state.json").write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2))
        _write_private(self.data / "admin_token", self.admin_token.encode())


def _router(*arguments: str) -> list[str]:
    # -P: a folder called router in the caller's working folder must not be taken for the package.
    return [sys.executable, "-P", "-m", "router", *arguments]


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _or_raise(result: servers.Server | BaseException) -> servers.Server:
    if isinstance(result, BaseException):
        raise result
    return result
