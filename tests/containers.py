"""`TEST_BACKEND=docker`: the servers of the tests as containers, run by testcontainers, with the face of a process.

A container shares network and process ids with this machine and runs as this user: its ports, its data folder and its
signals are those of a child process; the tests need not know. That is Linux only. Images: `redis:7` and `nats:2`, or
TEST_REDIS_IMAGE and TEST_NATS_IMAGE.
"""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from docker.errors import APIError
from testcontainers.core.container import DockerContainer


class Contained:
    """What the tests use of `subprocess.Popen`, for a container."""

    def __init__(self, image: str, command: list[str], folder: Path, log: Path) -> None:
        self._log = log
        self.args = command
        self.returncode: int | None = None
        around = str(folder.parent)  # certificates and the like lie beside it
        made = DockerContainer(image).with_command(command).with_volume_mapping(around, around, "rw")
        self._box = made.with_kwargs(
            network_mode="host", pid_mode="host", user=f"{os.getuid()}:{os.getgid()}", working_dir=str(folder)
        )
        self._box.start()
        self._container: Any = self._box.get_wrapped_container()
        self._container.reload()
        self.pid: int = self._container.attrs["State"]["Pid"]

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self.returncode is None:
            self._container.reload()
            if self._container.status not in {"running", "paused", "created", "restarting"}:
                self._ended(self._container.attrs["State"]["ExitCode"])
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end.

        :raises subprocess.TimeoutExpired: it has not ended in time.
        """
        if self.returncode is None:
            try:
                self._ended(self._container.wait(timeout=timeout)["StatusCode"])
            except OSError as late:  # what the engine's client raises when the engine does not answer in time
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from late
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sign: int) -> None:
        """Nothing happens when it has ended."""
        if self.poll() is None:
            try:
                self._container.kill(signal=signal.Signals(sign).name)
            except APIError:
                if self.poll() is None:
                    raise

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, code: int) -> None:
        self.returncode = code
        with self._log.open("ab") as log:
            log.write(self._container.logs())
        self._box.stop()
        self._box.get_docker_client().client.close()
