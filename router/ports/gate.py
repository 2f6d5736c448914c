"""The state file of the CP gate."""

from typing import Protocol


class StateFile(Protocol):
    """The mounted state file. The router only reads it."""

    def read(self) -> bytes | None:
        """Return the current content; None if the file does not exist. May block, so call it from a thread.

        :raises OSError: the file exists, but it cannot be read.
        """
