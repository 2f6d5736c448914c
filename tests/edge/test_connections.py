"""The bound of open connections: who goes, and who does not."""

from router.edge.http.connections import Connections


class Line:
    """A connection."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        """Close it."""
        self.aborted = True


class Room:
    """Connections with a clock of the test's own."""

    def __init__(self, maximum: int) -> None:
        self.now = 0.0
        self.connections = Connections(maximum, 10.0, lambda: self.now)

    def opened(self, count: int) -> list[Line]:
        """New connections, one a second."""
        lines = [Line() for _ in range(count)]
        for line in lines:
            self.connections.waits(line)
            self.now += 1
        return lines


def test_the_oldest_that_waits_goes_and_a_served_one_stays() -> None:
    """A request that the server works on is nobody's to close."""
    room = Room(2)
    served, waiting = room.opened(2)
    room.connections.serves(served)
    room.opened(1)
    assert (served.aborted, waiting.aborted, len(room.connections)) == (False, True, 2)


def test_when_all_are_served_the_new_one_goes() -> None:
    """The bound holds."""
    room = Room(1)
    (served,) = room.opened(1)
    room.connections.serves(served)
    (new,) = room.opened(1)
    assert (served.aborted, new.aborted, len(room.connections)) == (False, True, 1)


def test_a_served_connection_is_not_late() -> None:
    """It is waited for from the end of its response on, and while it does not read."""
    room = Room(5)
    (line,) = room.opened(1)
    room.connections.serves(line)
    room.now = 100
    room.connections.cut_late()
    assert not line.aborted
    room.connections.waits(line)
    room.now = 109
    room.connections.cut_late()
    assert not line.aborted
    room.now = 111
    room.connections.cut_late()
    assert line.aborted


def test_a_closed_connection_has_no_place() -> None:
    """Served or not."""
    room = Room(2)
    served, waiting = room.opened(2)
    room.connections.serves(served)
    for line in (served, waiting):
        room.connections.closed(line)
    assert len(room.connections) == 0


def test_what_is_not_open_cannot_be_served() -> None:
    """It was closed in the same turn."""
    room = Room(2)
    room.connections.serves(Line())
    assert len(room.connections) == 0
