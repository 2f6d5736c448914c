"""The mounted state file of the CP gate."""

from typing import Protocol


class StateFile(Protocol):
    """The mounted state file."""

    def read(self) -> bytes | None:
        """All of it, as it is now; None when there is no such file. May block; called from a thread.

        :raises OSError: it is there and cannot be read.
        """
