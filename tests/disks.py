"""A small disk that a test fills, for servers that it starts: `SmallDisk`, a tmpfs in a mount namespace of its own."""

import contextlib
import subprocess
from pathlib import Path
from typing import Self

from tests.servers import NatsProcess, ValkeyProcess, missing

_PIECE = b"\0" * 65_536


class SmallDisk:
    """`with SmallDisk(folder, megabytes)`: a server whose `prefix` is ours sees `folder` on a disk of this size.

    It keeps its files while servers come and go. Tests reach them by `inside`.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._size = megabytes
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        mount = f"mount -t tmpfs -o size={self._size}m none '{self.folder}' && echo mounted && exec sleep 100000"
        self._holder = subprocess.Popen(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", mount],  # noqa: S607 - of util-linux
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"mounted\n":
            self.__exit__()
            missing("a mount namespace", "allow unprivileged user namespaces")
        return self

    def __exit__(self, *_: object) -> None:
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a server's command."""
        assert self._holder is not None
        return ("nsenter", "--target", str(self._holder.pid), "--user", "--mount", "--preserve-credentials")

    @property
    def inside(self) -> Path:
        """The disk, as this process reaches it."""
        assert self._holder is not None
        return Path(f"/proc/{self._holder.pid}/root{self.folder}")

    def fill(self) -> None:
        """Not one byte is left."""
        with contextlib.suppress(OSError), (self.inside / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(_PIECE)

    def free(self) -> None:
        """There is room again."""
        (self.inside / "ballast").unlink()


class ValkeyOnDisk(ValkeyProcess):
    """A Valkey whose data is on a small disk, until `stop`."""

    def __init__(self, data: Path, *, megabytes: int, args: tuple[str, ...] = ()) -> None:
        self.disk = SmallDisk(data / "disk", megabytes)
        super().__init__(data, args=(*args, "--dir", str(self.disk.folder)))

    def start(self) -> Self:
        """On the disk, which is mounted first."""
        if not self.prefix:
            self.prefix = self.disk.__enter__().prefix
        return super().start()

    def stop(self) -> None:
        """The disk goes, too."""
        super().stop()
        self.disk.__exit__()
        self.prefix = ()


class NatsOnDisk(NatsProcess):
    """A NATS server whose streams are on a small disk, until `stop`."""

    def __init__(self, data: Path, *, megabytes: int) -> None:
        super().__init__(data)
        self.disk = SmallDisk(data / "jetstream", megabytes)

    def start(self) -> Self:
        """On the disk, which is mounted first."""
        if not self.prefix:
            self.prefix = self.disk.__enter__().prefix
        return super().start()

    def stop(self) -> None:
        """The disk goes, too."""
        super().stop()
        self.disk.__exit__()
        self.prefix = ()
