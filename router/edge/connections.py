"""The open HTTP connections, bounded: when there is one too many, the one that has waited longest is closed.

A connection waits from its accept, from the first byte of a request, or from the end of a response, whichever was last.
Further bytes of a request do not count: a client that sends one byte a second keeps no connection.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    """A connection that can be cut off."""

    def abort(self) -> None:
        """Close it at once."""


class Connections:
    """See the module. `clock` is monotonic, in seconds."""

    def __init__(self, maximum: int, timeout_s: float, clock: Callable[[], float]) -> None:
        self._maximum = maximum
        self._timeout_s = timeout_s
        self._clock = clock
        self._since: OrderedDict[Connection, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def waits(self, connection: Connection) -> None:
        """Note that a connection begins to wait now: a new one, or again."""
        if connection not in self._since and len(self._since) >= self._maximum:
            oldest, _ = self._since.popitem(last=False)
            oldest.abort()
        self._since[connection] = self._clock()
        self._since.move_to_end(connection)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._since.pop(connection, None)

    def cut_late(self) -> None:
        """Close the connections that have waited longer than `timeout_s`. Call once a second or so."""
        latest = self._clock() - self._timeout_s
        while self._since:
            connection, since = next(iter(self._since.items()))
            if since > latest:
                return
            del self._since[connection]
            connection.abort()
