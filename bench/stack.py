"""A Valkey, a NATS and pods on top, seeded with the workload's policies; what a measurement leaves is wiped."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from redis import Redis

from bench.cluster import start_cluster
from bench.generator import Generator
from bench.processes import HOST, Placement, Process, free_port, greeted, start_nats, start_valkey
from bench.workload import TENANTS, write_policies, write_templates

SUBJECT = "beamline.router.v1.decide"
NAIVE, ECHO_PYTHON, ECHO_NATIVE = "bench.naive", "bench.echo.python", "bench.echo.native"
_READY = b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
_POLICIES = "r1:*:policies"
_CHUNK = 2_000
PATIENT = {"ROUTER_STORE_DEADLINE": "1s"}
"""For comparisons of cost: a machine that does other work as well must not make them fail."""
POD_READY_S = 240  # with 10,000 policies to read, on a machine that does other work


class Stack:
    """Servers and pods, running until `stop`. `appendfsync` None: Valkey without AOF.

    `seed` writes the policy folder of `tenants` tenants, `templates` the requests. All pods share the pod's CPU.
    `primaries`: of a Redis Cluster; 0: no Cluster. `env`: further settings of the pods.
    """

    def __init__(
        self,
        folder: Path,
        placement: Placement,
        appendfsync: str | None,
        *,
        seed: Callable[[Path], None] = write_policies,
        templates: Callable[[Path], None] = write_templates,
        tenants: int = TENANTS,
        pods: int = 1,
        primaries: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder / (appendfsync or "off")
        self.folder.mkdir()
        self._seed, self._templates, self.tenants = seed, templates, tenants
        self._pods, self._primaries, self._env = pods, primaries, dict(env or {})
        self.placement = placement
        self.processes: dict[str, Process] = {}
        self.appendfsync = appendfsync
        self._kept: set[bytes] = set()

    def start(self) -> Self:
        """Start all; returns when the pod is ready and every tenant has its policy."""
        if self._primaries:
            nodes = start_cluster(self.folder, self.placement.rest, self._primaries)
        else:
            nodes = [start_valkey(self.folder, self.placement.rest, appendfsync=self.appendfsync)]
        self.processes |= {f"redis-{n}" if n else "redis": process for n, (process, _) in enumerate(nodes)}
        self.redis_process, self.redis_port = nodes[0]
        self.nodes = [Redis(HOST, port) for _, port in nodes]
        self.redis = self.nodes[0]
        self.nats_process, self.nats_port = start_nats(self.folder, self.placement.rest)
        self.processes["nats"] = self.nats_process
        templates = self.folder / "templates.bin"
        self._templates(templates)
        self.generator = Generator.build(self.folder, self.nats_port, templates)
        self._start_pods()
        self.keep()
        return self

    def keep(self) -> None:
        """What is in Redis now is not wiped."""
        self._kept = {key for redis in self.nodes for key in redis.scan_iter(count=_CHUNK)}

    @property
    def nats_url(self) -> str:
        """Where NATS listens."""
        return f"nats://{HOST}:{self.nats_port}"

    @property
    def redis_url(self) -> str:
        """Where Valkey listens."""
        return f"redis://{HOST}:{self.redis_port}/0"

    def start_beside(self) -> None:
        """Start what the pod is compared with: the naive pod and the echo responders, on the pod's CPU."""
        for name, command in (
            ("naive", ["-m", "bench.naive", self.nats_url, str(self.redis_port), NAIVE]),
            ("echo", ["-m", "bench.echo", self.nats_url, ECHO_PYTHON]),
        ):
            process = self._started(name, [sys.executable, *command])
            process.wait_for(lambda process=process: "LISTENING" in process.tail())  # type: ignore[misc]
        if self.generator.native:
            self._started("echo-native", self.generator.echo(ECHO_NATIVE))

    def _started(self, name: str, command: list[str], env: dict[str, str] | None = None) -> Process:
        process = Process(name, command, self.placement.pod, self.folder, env)
        self.processes[name] = process
        return process

    def _start_pods(self) -> None:
        policies = self.folder / "policies"
        self._seed(policies)
        state = self.folder / "cp_state.json"
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        state.write_text(json.dumps({"project": "bench", "version": "1", "current_cp": "CP2-LC", "updated_at": now}))
        env = {
            "ROUTER_NATS_URL": self.nats_url,
            "ROUTER_REDIS_URL": self.redis_url,
            "ROUTER_HTTP_HOST": HOST,
            "ROUTER_POLICY_DIR": str(policies),
            "ROUTER_CP_STATE_PATH": str(state),
            "ROUTER_LOG_LEVEL": "warning",
        } | ({"ROUTER_REDIS_CLUSTER": "true"} if self._primaries else {})
        started = [self._start_pod(number, env) for number in range(1, self._pods + 1)]
        for pod, port in started:
            pod.wait_for(lambda port=port: greeted(port, _READY, b" 200 "), POD_READY_S)  # type: ignore[misc]
        started[0][0].wait_for(lambda: self._policies() == self.tenants, POD_READY_S)

    def _start_pod(self, number: int, env: dict[str, str]) -> tuple[Process, int]:
        port = free_port()
        own = {"ROUTER_POD_NAME": f"bench-{number}", "ROUTER_HTTP_PORT": str(port)}
        name = "pod" if number == 1 else f"pod-{number}"
        return self._started(name, [sys.executable, "-m", "router", "serve"], env | own | self._env), port

    def _policies(self) -> int:
        return sum(1 for redis in self.nodes for _ in redis.scan_iter(_POLICIES, count=_CHUNK))

    def wipe(self) -> None:
        """Remove every key that was not there when the pods had become ready."""
        for redis in self.nodes:
            gone = [key for key in redis.scan_iter(count=_CHUNK) if key not in self._kept]
            for at in range(0, len(gone), _CHUNK):
                pipeline = redis.pipeline(transaction=False)  # one slot a command, as a Cluster wants it
                for key in gone[at : at + _CHUNK]:
                    pipeline.unlink(key)
                pipeline.execute()

    def stop(self) -> None:
        """Stop all, the callers first."""
        for process in reversed(self.processes.values()):
            process.stop()
