"""The mounted state file of the CP gate."""

from typing import Protocol


class StateFile(Protocol):
    """The mounted state file."""

    def read(self) -> bytes | None:
        """Its current content; None when there is no file. May block, so it is called from a thread.

        :raises OSError: the file exists and cannot be read.
        """
