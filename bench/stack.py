"""A Valkey, a NATS and pods on top, seeded with the workload's policies; what a measurement leaves is wiped."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from redis import Redis

from bench.generator import Generator
from bench.processes import HOST, Placement, Process, free_port, greeted, start_nats, start_valkey
from bench.workload import TENANTS, write_policies, write_templates

SUBJECT = "beamline.router.v1.decide"
NAIVE, ECHO_PYTHON, ECHO_NATIVE = "bench.naive", "bench.echo.python", "bench.echo.native"
_READY = b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
_POLICIES = "r1:*:policies"
_CHUNK = 2_000
POD_READY_S = 60


class Stack:
    """Servers and pods, running until `stop`. `appendfsync` None: Valkey without AOF. `seed` writes the policy folder,
    with one policy for each of `tenants` tenants. All pods share the pod's CPU.
    """

    def __init__(
        self,
        folder: Path,
        placement: Placement,
        appendfsync: str | None,
        *,
        seed: Callable[[Path], None] = write_policies,
        tenants: int = TENANTS,
        pods: int = 1,
    ) -> None:
        self.folder = folder / (appendfsync or "off")
        self.folder.mkdir()
        self._seed, self._tenants, self._pods = seed, tenants, pods
        self.placement = placement
        self.processes: dict[str, Process] = {}
        self.appendfsync = appendfsync
        self._kept: set[bytes] = set()

    def start(self) -> Self:
        """Start all; returns when the pod is ready and every tenant has its policy."""
        self.redis_process, self.redis_port = start_valkey(
            self.folder, self.placement.rest, appendfsync=self.appendfsync
        )
        self.processes["redis"] = self.redis_process
        self.redis = Redis(HOST, self.redis_port)
        self.nats_process, self.nats_port = start_nats(self.folder, self.placement.rest)
        self.processes["nats"] = self.nats_process
        templates = self.folder / "templates.bin"
        write_templates(templates)
        self.generator = Generator.build(self.folder, self.nats_port, templates)
        self._start_pods()
        self._kept = set(self.redis.scan_iter(count=_CHUNK))
        return self

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
        }
        started = [self._start_pod(number, env) for number in range(1, self._pods + 1)]
        for pod, port in started:
            pod.wait_for(lambda port=port: greeted(port, _READY, b" 200 "), POD_READY_S)  # type: ignore[misc]
        started[0][0].wait_for(lambda: self._policies() == self._tenants, POD_READY_S)

    def _start_pod(self, number: int, env: dict[str, str]) -> tuple[Process, int]:
        port = free_port()
        own = {"ROUTER_POD_NAME": f"bench-{number}", "ROUTER_HTTP_PORT": str(port)}
        name = "pod" if number == 1 else f"pod-{number}"
        return self._started(name, [sys.executable, "-m", "router", "serve"], env | own), port

    def _policies(self) -> int:
        return sum(1 for _ in self.redis.scan_iter(_POLICIES, count=_CHUNK))

    def wipe(self) -> None:
        """Remove every key that was not there when the pod had become ready."""
        gone: list[bytes] = []
        for key in self.redis.scan_iter(count=_CHUNK):
            if key not in self._kept:
                gone.append(key)
            if len(gone) >= _CHUNK:
                self.redis.unlink(*gone)
                gone.clear()
        if gone:
            self.redis.unlink(*gone)

    def stop(self) -> None:
        """Stop all, the callers first."""
        for process in reversed(self.processes.values()):
            process.stop()
