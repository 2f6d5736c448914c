"""Bounds the open HTTP connections: beyond the bound, the connection that has waited longest is closed.

A connection waits from its accept, from the first byte of a request, or from the end of a response, whichever was last.
A connection whose request is complete is served, and does not wait; it waits again while it does not read its response.
Further bytes of a request do not count, so a client that sends one byte a second cannot hold a connection.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    """A connection that can be closed."""

    def abort(self) -> None:
        """Close it at once."""


class Connections:
    """Bounds connections; see the module. `clock` is monotonic, in seconds."""

    def __init__(self, maximum: int, timeout_s: float, clock: Callable[[], float]) -> None:
        self._maximum = maximum
        self._timeout_s = timeout_s
        self._clock = clock
        self._since: OrderedDict[Connection, float] = OrderedDict()
        self._served: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._since) + len(self._served)

    def waits(self, connection: Connection) -> None:
        """Record that a connection, new or known, starts to wait now."""
        if connection in self._served:
            self._served.remove(connection)
        elif connection not in self._since and len(self) >= self._maximum:
            if not self._since:
                connection.abort()
                return
            oldest, _ = self._since.popitem(last=False)
            oldest.abort()
        self._since[connection] = self._clock()
        self._since.move_to_end(connection)

    def serves(self, connection: Connection) -> None:
        """Record that a connection has sent its request: the server works now, and takes its time."""
        if self._since.pop(connection, None) is not None:
            self._served.add(connection)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._since.pop(connection, None)
        self._served.discard(connection)

    def cut_late(self, timeout_s: float | None = None) -> None:
        """Close the connections that have waited longer than `timeout_s`, by default the one of the port. Call about
        once a second.
        """
        latest = self._clock() - (self._timeout_s if timeout_s is None else timeout_s)
        while self._since:
            connection, since = next(iter(self._since.items()))
            if since > latest:
                return
            del self._since[connection]
            connection.abort()
