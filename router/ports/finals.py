"""Final results of tasks, heard by the pod that waits for them."""

import asyncio
from typing import Protocol


class FinalInbox(Protocol):
    """Subjects for final results, each for one waiter in this pod."""

    def expect(self) -> "tuple[str, asyncio.Future[bytes | None]]":
        """Return a new subject, and the first message that comes there; None: the pod ends."""

    def forget(self, subject: str) -> None:
        """Nobody waits for this subject any more."""
