"""A fleet of real processes: Valkey, NATS, and pods that are started as an operator starts them, by `ROUTER_*` alone.

Pods are stopped by pid; their logs lie in the fleet's folder and are shown when one does not get ready.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from router.domain.audit.records import Actor, AuditEntry
from router.errors import StoreError
from router.store.audit.log import RedisAudit
from router.store.keys import Keys
from router.store.levers import RedisLevers, lever_scripts
from router.store.policies import RedisPolicies
from router.store.servers.cluster import Cluster
from router.store.servers.nodes import Nodes, SingleNode
from router.store.tenants.inspect import RedisInspector
from router.usecases.admin.overrides import OverrideService
from router.usecases.policies.publish import PolicyPublisher
from tests.servers import LEAST_RIGHTS, PREVIOUS_RIGHTS, NatsProcess, ValkeyProcess, free_port, to_its_end

READY_S = 90.0
STOP_S = 20.0
_POLL_S = 0.01

Document = dict[str, Any]

PLAIN: Document = {
    "version": "1.0",
    "providers": [
        {"name": "alpha", "weight": 60, "expected_latency_ms": 100, "expected_cost": 0.01},
        {"name": "beta", "weight": 40, "expected_latency_ms": 200, "expected_cost": 0.02},
    ],
}
STATE = {"project": "tests", "version": "1", "current_cp": "CP2-LC", "updated_at": "2026-01-01T00:00:00Z"}


async def until(look: Callable[[], Any], within_s: float, what: str) -> Any:
    """The first true value of `look` (plain or awaitable), asked again and again: servers have no event to wait for."""
    give_up = time.monotonic() + within_s
    while True:
        found = look()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < give_up, f"{what}: not within {within_s:g} s"
        await asyncio.sleep(_POLL_S)


async def assert_quiet(pod: "Pod", seconds: float = 2.0, lines: int = 6) -> None:
    """Nothing happens: the pod's log grows by a few lines at most in that time."""
    before = len(pod.log.read_text().splitlines())
    await asyncio.sleep(seconds)
    assert len(pod.log.read_text().splitlines()) - before <= lines


class Pod:
    """One pod process. `start` returns when /readyz says 200, unless told not to wait."""

    def __init__(self, name: str, folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.port = free_port()
        self.log = folder / f"{name}.log"
        self.environment = dict(env)
        """From the next start on."""
        self.process: asyncio.subprocess.Process | None = None
        self.program: tuple[str, ...] = ("-m", "router")

    async def start(self, *, wait: bool = True, **env: str) -> Self:
        """Start the process; `env` is added."""
        outer = {k: v for k, v in os.environ.items() if not k.startswith("ROUTER_")}
        own = {"ROUTER_POD_NAME": self.name, "ROUTER_HTTP_PORT": str(self.port)}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", *self.program, "serve"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=outer | own | self.environment | env,
            )
        if wait:
            await self.until_ready()
        return self

    async def until_ready(self, within_s: float = READY_S) -> None:
        """Wait for /readyz."""
        try:
            await until(self._ready, within_s, f"{self.name} is ready")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{await self.readyz()}\n{self.log.read_text()[-3000:]}") from e

    async def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, f"{self.name} ended:\n{self.log.read_text()[-3000:]}"
        return (await self.readyz())[0] == 200

    async def http(self, path: str) -> tuple[int, bytes]:
        """Status and body; (0, b"") when nobody listens."""
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET %b HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n" % path.encode())
                raw = await reader.read()
                writer.close()
        except OSError:
            return 0, b""
        head, _, body = raw.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body

    async def readyz(self) -> tuple[int, dict[str, Any]]:
        """Status and what it says."""
        status, body = await self.http("/readyz")
        return status, orjson.loads(body) if body else {}

    async def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels, as it stands in the text."""
        _, body = await self.http("/metrics")
        rows = (line.rsplit(" ", 1) for line in body.decode().splitlines() if line and line[0] != "#")
        return {name: float(value) for name, value in rows}

    def terminate(self) -> None:
        """SIGTERM."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, within_s: float = READY_S) -> int:
        """Wait for the end; the exit code. A pod that refuses to start has a start's time for it."""
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), within_s)

    async def stop(self) -> int:
        """SIGTERM, and the exit code; nothing happens when it has ended."""
        if self.process is None:
            return 0
        if self.process.returncode is None:
            self.terminate()
        try:
            return await self.ended(STOP_S)
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"{self.name} did not stop:\n{self.log.read_text()[-3000:]}") from None

    async def kill(self) -> None:
        """kill -9; nothing if it has ended by itself."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        lines = (orjson.loads(x) for x in self.log.read_text().splitlines() if x.startswith("{"))
        return [x for x in lines if x.get("event") == event]


class Fleet:
    """Servers and pods in one folder. `env` is every pod's; `policies`: the mounted folder."""

    def __init__(
        self,
        folder: Path,
        *,
        pods: int = 2,
        env: Mapping[str, str] | None = None,
        policies: Mapping[str, Mapping[str, Any]] | None = None,
        state: Mapping[str, Any] | None = STATE,
        nats: NatsProcess | None = None,
        valkey: ValkeyProcess | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.valkey = valkey or ValkeyProcess(folder / "valkey")
        self.nats = nats or NatsProcess(folder / "nats")
        self.state_path = folder / "cp" / "state.json"
        self.policy_dir = folder / "policies"
        self.policy_dir.mkdir()
        self.state_path.parent.mkdir()
        if state is not None:
            self.state_path.write_bytes(orjson.dumps(state))
        for tenant, documents in (policies or {}).items():
            (self.policy_dir / tenant).mkdir()
            for name, document in documents.items():
                (self.policy_dir / tenant / f"{name}.json").write_bytes(orjson.dumps(document))
        base = {
            "ROUTER_HTTP_HOST": "127.0.0.1",
            "ROUTER_POLICY_DIR": str(self.policy_dir),
            "ROUTER_CP_STATE_PATH": str(self.state_path),
            "ROUTER_CP_POLL": "50ms",
            "ROUTER_STORE_DEADLINE": "250ms",
            "ROUTER_ADMIN_NATS_READ": "open",
            "ROUTER_LOG_FORMAT": "json",
            "ROUTER_ALERT_AWAY": "1s",
            "ROUTER_ALERT_CALM": "0s",
        }
        self._env = base | dict(env or {})
        if LEAST_RIGHTS:
            self._env = {"ROUTER_NATS_INBOX_PREFIX": "_INBOX.router-pod"} | self._env
            # A test that has granted users of its own needs those.
            if not self.nats.granted:
                self.nats.grant(self._env)
        elif PREVIOUS_RIGHTS:
            self.nats.grant_previous(self._env.get("ROUTER_RESULT_SUBJECT_PREFIXES", ""))
        self._count = pods
        self.pods: list[Pod] = []
        self._tenants = 0
        self._stack = AsyncExitStack()

    @property
    def pod_env(self) -> dict[str, str]:
        """What a pod of this fleet is started with."""
        return self._env | {"ROUTER_NATS_URL": self.nats.pod_url, "ROUTER_REDIS_URL": self.valkey.pod_url}

    def pod(self, name: str | None = None, **env: str) -> Pod:
        """A further pod, not started."""
        made = Pod(name or f"pod-{len(self.pods) + 1}", self.folder, self.pod_env | env)
        self.pods.append(made)
        return made

    async def __aenter__(self) -> Self:
        try:
            for server in (self.valkey, self.nats):
                if server.process is None:
                    await to_its_end(server.start)
            await self._open_store()
            for _ in range(self._count):
                self.pod()
            await asyncio.gather(*(p.start() for p in self.pods))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _fault: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if LEAST_RIGHTS and kind is None:
            await self.nothing_was_refused()
        await self._stop()

    async def nothing_was_refused(self) -> None:
        """Fail if a server has refused a right to a party that has its least rights."""
        refused = [line for line in self.nats.violations() if 'User "router-' in line]
        with suppress(StoreError):  # the test may have taken it away
            entries = await self.redis("ACL", "LOG")
            refused += [text for text in map(str, entries) if "router-" in text and "nobody" not in text]
        assert refused == []

    async def _open_store(self) -> None:
        self.keys = Keys()
        self.nodes: Nodes = SingleNode(self.valkey.url)
        if self.valkey.rights.cluster:
            self.nodes = Cluster(self.valkey.url)
            await self.nodes.open()
        self._stack.push_async_callback(self.nodes.close)
        self._audit = RedisAudit(self.keys, self.nodes)
        self.publisher = PolicyPublisher(RedisPolicies(self.nodes, self.keys), self)

    async def reopen_store(self) -> None:
        """After `valkey` has moved: what this harness itself reads is there from now on."""
        await self.nodes.close()
        await self._open_store()

    def policy_changed(self, _tenant_id: str, _revision: int) -> None:
        """Announces nothing: a test that wants it announced uses the command line."""

    async def _stop(self) -> None:
        await asyncio.gather(*(p.kill() for p in self.pods if p.process is not None and p.process.returncode is None))
        await self._stack.aclose()
        for server in (self.nats, self.valkey):
            await asyncio.to_thread(server.stop)

    async def tenant(self, default: Mapping[str, Any] = PLAIN, **more: Mapping[str, Any]) -> str:
        """A fresh tenant with these policies, in the store."""
        self._tenants += 1
        name = f"tenant-{self._tenants}"
        for policy, document in {"default": default, **more}.items():
            await self.publisher.apply(name, policy_id=policy, document=orjson.dumps(document))
        return name

    async def neighbour(self, of: str, default: Mapping[str, Any] = PLAIN) -> str:
        """A fresh tenant whose keys lie in the same partition: ids do not tell the two apart."""
        while self.keys.tenant(f"tenant-{self._tenants + 1}").partition != self.keys.tenant(of).partition:
            self._tenants += 1
        return await self.tenant(default)

    def operator(self) -> OverrideService:
        """An operator, as the command line makes one."""
        levers = RedisLevers(self.keys, self.nodes, lever_scripts())
        return OverrideService(
            levers,
            RedisInspector(self.keys, self.nodes),
            RedisPolicies(self.nodes, self.keys),
            Actor(principal="tester"),
        )

    async def redis(self, *command: bytes | str | int) -> Any:
        """One command."""
        return await self.nodes.call(*command)

    async def audit(self, tenant: str, request_id: str | None = None, *, writes: bool = False) -> list[AuditEntry]:
        """The tenant's audit log, oldest first; of one request if named. Writes of policies (`tenant` makes some) only
        when asked for."""
        found: list[AuditEntry] = []
        last = "0-0"
        while page := await self._audit.after(tenant, last=last, maximum=1000):
            found += page
            last = page[-1].id
        shown = [e for e in found if writes or not e.action.startswith("policy.")]
        return [e for e in shown if request_id is None or e.details.get("request_id") == request_id]

    async def actions(self, tenant: str, request_id: str | None = None) -> list[str]:
        """The actions of the audit entries."""
        return [e.action for e in await self.audit(tenant, request_id)]

    async def total(self, metric: str) -> float:
        """A metric summed over the running pods and all its labels."""
        sums = 0.0
        for pod in self.pods:
            if pod.process is not None and pod.process.returncode is None:
                sums += sum(v for k, v in (await pod.metrics()).items() if k.partition("{")[0] == metric)
        return sums

    async def outbox(self) -> int:
        """How many usage events wait in the store."""
        sizes = [await self.redis("HLEN", self.keys.outbox(p)) for p in range(self.keys.partitions)]
        return sum(int(n) for n in sizes)
