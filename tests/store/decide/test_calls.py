"""What a write contains, and which reply belongs to which batch: canned replies, the bytes that go out."""

from typing import Any, cast

import pytest
from redis.exceptions import MovedError, NoScriptError, ReadOnlyError, ResponseError

from router.store.decide.batch import Batch
from router.store.decide.calls import MAX_LIBRARIES, NOT_REPLICATED, Calls, LaneSettings
from router.store.decisions import decide_script
from router.store.scripts import layouts
from router.store.scripts.load import Script
from router.store.servers.link import Link
from tests.store import layout_reader

MISSING = ResponseError("Function not found")
DONE = [0, 1, 2]


class Packer:
    """A link as far as calls use it: a command is its first word and a space."""

    def __init__(self) -> None:
        self.closed = 0

    def pack(self, commands: list[tuple[Any, ...]]) -> list[bytes]:
        """Their names are enough here."""
        return [b"%b " % (c[0] if isinstance(c[0], bytes) else str(c[0]).encode()) for c in commands]

    def pack_each(self, commands: list[tuple[Any, ...]]) -> list[bytes]:
        """As `pack`."""
        return self.pack(commands)

    def close(self) -> None:
        """Count it."""
        self.closed += 1


def calls_of(
    settings: LaneSettings | None = None, script: Script | None = None, link: Packer | None = None
) -> tuple[Calls, Packer]:
    """Calls over a packer."""
    link = link or Packer()
    return Calls(cast(Link, link), script or decide_script(), settings or LaneSettings(), lambda: 0.0), link


def batch(*, asking: bool = False, jobs: int = 0) -> Batch:
    """A batch with so many work items."""
    made = Batch()
    made.asking = asking
    made.jobs = [(b"key%d" % n, b"job") for n in range(jobs)]
    return made


def words(data: bytes) -> list[str]:
    """The names of the commands in a write, in order."""
    names = ("ASKING", "FUNCTION", "SET", "WAIT", "UNLINK", "FCALL", "EVALSHA", "EVAL")
    found = [(at, name) for name in names for at in _places(data, name)]
    return [name for _, name in sorted(found)]


def _places(data: bytes, name: str) -> list[int]:
    needles = (b"$%d\r\n%b\r\n" % (len(name), name.encode()), b"%b " % name.encode())
    return [at for needle in needles for at in range(len(data)) if data.startswith(needle, at)]


@pytest.mark.parametrize("asking", [False, True])
@pytest.mark.parametrize("jobs", [0, 2])
async def test_a_node_without_the_script_gets_it_and_the_call_again(asking: bool, jobs: int) -> None:
    """On a slot that is on its way, the second call asks too: without ASKING the node would send it back."""
    calls, _ = calls_of()
    b = batch(asking=asking, jobs=jobs)
    ask = ["ASKING"] * asking
    data, count = calls.write([b], [])
    assert words(data) == [*([*ask, "SET"] * jobs), *ask, "FCALL"]
    first = ["OK"] * (count - 1)
    assert calls.read([b], [*first, MISSING]) == ([], [b])
    data, count = calls.write([b], [])
    assert words(data) == [*([*ask, "SET"] * jobs), "FUNCTION", "FUNCTION", *ask, "FCALL"]
    replies = [*(["OK"] * (1 + asking) * jobs), "name", [], *(["OK"] * asking), DONE]
    assert count == len(replies)
    assert calls.read([b], replies) == ([(b, DONE)], [])


async def test_a_script_that_is_no_library_goes_by_its_source() -> None:
    """EVAL loads it; nothing else is sent for that."""
    calls, _ = calls_of(script=decide_script().without_functions())
    b = batch(jobs=1)
    assert words(calls.write([b], [])[0]) == ["SET", "EVALSHA"]
    assert calls.read([b], ["OK", NoScriptError("no matching script")]) == ([], [b])
    data, count = calls.write([b], [])
    assert (words(data), count) == (["SET", "EVAL"], 2)
    assert calls.read([b], ["OK", DONE]) == ([(b, DONE)], [])


async def test_a_script_that_is_missing_again_is_a_refusal() -> None:
    """A node that forgets it at once is not asked for ever."""
    calls, _ = calls_of()
    b = batch()
    b.loading = True
    _, count = calls.write([b], [])
    assert count == 3
    assert calls.read([b], ["name", [], MISSING]) == ([(b, MISSING)], [])


async def test_a_load_that_is_refused_is_the_reply() -> None:
    """Its reason says more than that the script is missing; the other batches of the write have their own replies."""
    calls, _ = calls_of()
    before, b, after = batch(), batch(asking=True, jobs=1), batch()
    b.loading = True
    calls.write([before, b, after], [])
    full = ResponseError("OOM command not allowed")
    replies = [DONE, "OK", "OK", full, [], "OK", MISSING, [0, 3, 4]]
    assert calls.read([before, b, after], replies) == ([(before, DONE), (b, full), (after, [0, 3, 4])], [])


async def test_only_the_batches_without_the_script_go_again() -> None:
    """Another pod may load it between two calls of one write."""
    calls, _ = calls_of()
    first, second, third = batch(), batch(), batch()
    calls.write([first, second, third], [])
    assert calls.read([first, second, third], [MISSING, DONE, MISSING]) == ([(second, DONE)], [first, third])


async def test_replies_before_the_calls_are_skipped() -> None:
    """UNLINKs, work items and ASKING have replies, too, whatever these are."""
    calls, _ = calls_of()
    one, two, three = batch(jobs=2), batch(asking=True), batch(asking=True, jobs=1)
    data, count = calls.write([one, two, three], [b"a", b"b"])
    expected = ["UNLINK", "UNLINK", "SET", "SET", "FCALL", "ASKING", "FCALL", "ASKING", "SET", "ASKING", "FCALL"]
    assert words(data) == expected
    assert count == len(expected)
    replies = [*range(4), "one", 5, "two", *range(7, 10), "three"]
    assert calls.read([one, two, three], replies) == ([(one, "one"), (two, "two"), (three, "three")], [])


async def test_old_libraries_are_removed_by_the_next_write() -> None:
    """All others, once; not while there are few."""
    calls, _ = calls_of()
    b = batch()
    b.loading = True
    own = decide_script().call[1]

    def listed(count: int) -> list[Any]:
        return [[b"library_name", own], *([b"library_name", b"old%d" % n] for n in range(count - 1))]

    waits = []
    for count in (MAX_LIBRARIES, MAX_LIBRARIES + 1):
        calls.write([b], [])
        calls.read([b], ["name", listed(count), DONE])
        waits.append(calls.has_removals)
    assert waits == [False, True]
    data, count = calls.write([], [])
    assert (words(data), count) == (["FUNCTION"] * MAX_LIBRARIES, MAX_LIBRARIES)
    assert calls.read([], ["OK"] * count) == ([], [])
    assert calls.write([], []) == (b"", 0)


@pytest.mark.parametrize(
    ("marker", "replicas", "confirmed"),
    [
        ("OK", 2, True),
        ("OK", 3, True),
        ("OK", 1, False),
        ("OK", 0, False),
        ("OK", ResponseError("WAIT is not allowed"), False),
        (ResponseError("OOM"), 2, False),
    ],
)
async def test_what_replicas_must_have(marker: Any, replicas: Any, confirmed: bool) -> None:
    """A reply counts once enough replicas have a marker behind it; a refusal executed nothing, so it needs none."""
    calls, _ = calls_of(LaneSettings(wait_replicas=2))
    done, refused = batch(), batch()
    done.waiting = cast(Any, [_Row()])
    data, count = calls.write([done, refused], [])
    assert (words(data), count) == (["FCALL", "FCALL", "SET", "WAIT"], 4)
    moved = MovedError("1 127.0.0.1:7001")
    executed, _ = calls.read([done, refused], [DONE, moved, marker, replicas])
    assert executed == [(done, DONE if confirmed else NOT_REPLICATED), (refused, moved)]


async def test_the_marker_of_a_moving_slot_asks_too() -> None:
    """The node would refuse it otherwise."""
    calls, _ = calls_of(LaneSettings(wait_replicas=1))
    b = batch(asking=True)
    b.waiting = cast(Any, [_Row()])
    data, count = calls.write([b], [])
    assert (words(data), count) == (["ASKING", "FCALL", "ASKING", "SET", "WAIT"], 5)
    assert calls.read([b], ["OK", DONE, "OK", "OK", 1]) == ([(b, DONE)], [])


async def test_a_demoted_server_is_left() -> None:
    """READONLY closes the connection: the server keeps it, and its address may lead to the new primary."""
    calls, link = calls_of()
    b = batch()
    calls.write([b], [])
    refusal = ReadOnlyError("You can't write against a read only replica.")
    assert calls.read([b], [refusal]) == ([(b, refusal)], [])
    assert link.closed == 1


class _Row:
    """A row, as far as a marker needs it."""

    class keys:  # noqa: N801
        """Of its tenant."""

        wait = b"wait"


def test_a_call_has_every_bound_under_its_name() -> None:
    """Bounds differ from each other, so that no two can be swapped unnoticed; the deadline counts from now."""
    settings = LaneSettings(
        deadline_ms=1,
        idempotency_ms=2,
        audit_max_len=3,
        audit_ms=4,
        publish_grace_ms=5,
        call_budget_ms=6,
        deadline_max_ms=7,
    )
    calls = Calls(cast(Link, Packer()), decide_script(), settings, lambda: 700.5)
    header, _ = layout_reader.fields(layouts.DECIDE_BATCH, calls._header())
    bounds = {"idem_ms": 2, "audit_max": 3, "audit_ms": 4, "grace_ms": 5, "deadline_max_ms": 7}
    assert header == {**bounds, "call_not_after": 701.5}
