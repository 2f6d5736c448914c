"""The mounted CP state file."""

import errno
import os
import stat
from pathlib import Path

from router.domain.gate import MAX_STATE_BYTES


class MountedFile:
    """Implements `ports.gate.StateFile`. Without a path, the file counts as missing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> bytes | None:
        """Read the file, at most one byte more than the accepted size; None: it does not exist.

        :raises OSError: it exists but cannot be read, or is not a regular file (opening a pipe would block forever).
        """
        if self._path is None:
            return None
        try:
            with open(self._path, "rb", opener=_open_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError(errno.EINVAL, "not a regular file")
                return file.read(MAX_STATE_BYTES + 1)
        except FileNotFoundError:
            return None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
