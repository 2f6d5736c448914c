"""The mounted CP state file."""

from pathlib import Path

from router.domain.gate import MAX_STATE_BYTES


class MountedFile:
    """Implements `ports.gate.StateFile`. Without a path, the file counts as missing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> bytes | None:
        """Read the file, at most one byte more than the accepted size; None: it does not exist.

        :raises OSError: it exists but cannot be read.
        """
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                return file.read(MAX_STATE_BYTES + 1)
        except FileNotFoundError:
            return None
