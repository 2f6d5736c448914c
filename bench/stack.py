"""A Valkey, a NATS and one pod on top, seeded with the workload's policies; what a measurement leaves is wiped."""

import json
import sys
import time
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


class Stack:
    """Servers and pod, running until `stop`. `appendfsync` None: Valkey without AOF."""

    def __init__(self, folder: Path, placement: Placement, appendfsync: str | None) -> None:
        self.folder = folder / (appendfsync or "off")
        self.folder.mkdir()
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
        self._start_pod()
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

    def _start_pod(self) -> None:
        policies = self.folder / "policies"
        write_policies(policies)
        state = self.folder / "cp_state.json"
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        state.write_text(json.dumps({"project": "bench", "version": "1", "current_cp": "CP2-LC", "updated_at": now}))
        port = free_port()
        env = {
            "ROUTER_POD_NAME": "bench",
            "ROUTER_NATS_URL": self.nats_url,
            "ROUTER_REDIS_URL": self.redis_url,
            "ROUTER_HTTP_HOST": HOST,
            "ROUTER_HTTP_PORT": str(port),
            "ROUTER_POLICY_DIR": str(policies),
            "ROUTER_CP_STATE_PATH": str(state),
            "ROUTER_LOG_LEVEL": "warning",
        }
        pod = self._started("pod", [sys.executable, "-m", "router", "serve"], env)
        pod.wait_for(lambda: greeted(port, _READY, b" 200 "))
        pod.wait_for(lambda: self._policies() == TENANTS)

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
