"""The mounted CP state file."""

from pathlib import Path

from router.domain.gate import MAX_STATE_BYTES


class MountedFile:
    """Implements `usecases.gate.gate.StateFile`. Without a path there is never a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> bytes | None:
        """All of it, up to one byte more than is accepted; None when there is no such file.

        :raises OSError: it is there and cannot be read.
        """
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                return file.read(MAX_STATE_BYTES + 1)
        except FileNotFoundError:
            return None
