"""What goes out after a node did not know the script: canned replies, the bytes that follow."""

from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from router.store.decide.batch import Batch
from router.store.decide.calls import Calls, LaneSettings
from router.store.decisions import decide_script
from router.store.scripts import layouts
from router.store.servers.link import Link
from tests.store import layout_reader


class Canned:
    """A link that answers what it was given, and keeps what was sent."""

    def __init__(self, *replies: list[Any]) -> None:
        self.replies = list(replies)
        self.sent: list[bytes] = []

    def pack(self, commands: list[tuple[Any, ...]]) -> list[bytes]:
        """Their names are enough here."""
        return [str(c[0]).encode() for c in commands]

    def pack_each(self, commands: list[tuple[Any, ...]]) -> list[bytes]:
        """As `pack`."""
        return self.pack(commands)

    async def send_packed(self, parts: list[bytes]) -> None:
        """Keep it."""
        self.sent.append(b"".join(parts))

    async def receive(self, count: int) -> list[Any]:
        """The next canned replies, as many as were asked for."""
        found = self.replies.pop(0)
        assert len(found) == count
        return found


@pytest.mark.parametrize(("asking", "more"), [(False, 0), (True, 1)])
async def test_a_node_without_the_script_gets_it_and_the_call_again(asking: bool, more: int) -> None:
    """On a slot that is on its way, the second call asks too: without ASKING the node would send it back."""
    link = Canned([*(["OK"] * more), ResponseError("Function not found")], ["name", [], *(["OK"] * more), [0, 1, 2]])
    calls = Calls(cast(Link, link), decide_script(), LaneSettings(), lambda: 0.0)
    batch = Batch()
    batch.asking = asking
    await calls.send([batch], [])
    assert await calls.receive([batch], 0) == [[0, 1, 2]]
    assert [b"ASKING" in sent for sent in link.sent] == [asking, asking]
    assert b"FUNCTION" in link.sent[1]


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
    calls = Calls(cast(Link, Canned()), decide_script(), settings, lambda: 700.5)
    header, _ = layout_reader.fields(layouts.DECIDE_BATCH, calls._header())
    bounds = {"idem_ms": 2, "audit_max": 3, "audit_ms": 4, "grace_ms": 5, "deadline_max_ms": 7}
    assert header == {**bounds, "call_not_after": 701.5}
