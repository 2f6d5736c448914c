"""The queue of rows: a tenant that asks now and then does not wait behind another tenant's backlog."""

from typing import Any

import pytest

from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.calls import LaneSettings
from router.store.decide.row_queue import AHEAD_PART, RowQueue

ROWS = 32


class Packer:
    """Writes a row's name, and the tenant into the batch."""

    def add(self, batch: Batch, w: Any, nonce: int, not_after: float) -> None:
        """See `store.decide.rows.RowPacker.add`."""
        batch.tenants[w.request.tenant_id] = (1, 2, 3)
        batch.rows.append(w.request.tenant_id.encode())
        batch.waiting.append(w)


class Row:
    """A waiting row, as far as the queue reads it."""

    def __init__(self, tenant_id: str, group: int) -> None:
        self.request = self
        self.tenant_id = tenant_id
        self.group = group


@pytest.fixture
def queue() -> RowQueue:
    """A queue whose calls have 32 rows."""
    return RowQueue(Packer(), LaneSettings(max_rows=ROWS))  # type: ignore[arg-type]


def add(queue: RowQueue, tenant_id: str, count: int = 1, group: int = 0) -> None:
    """So many rows of a tenant."""
    for _ in range(count):
        row: Any = Row(tenant_id, group)
        waiting: WaitingRow = row
        queue.add(waiting, 0.0)


def taken(queue: RowQueue) -> list[list[bytes]]:
    """The rows of each call, in order."""
    calls = []
    while not queue.empty:
        calls.append([row for batch in queue.take() for row in batch.rows])
    return calls


def test_a_row_of_another_tenant_goes_with_the_next_call(queue: RowQueue) -> None:
    """Ten calls of a flood wait: a victim's row is in the first, its second one in the second, and so on."""
    add(queue, "flood", 10 * ROWS)
    add(queue, "victim", 3)
    calls = taken(queue)
    assert [c.count(b"victim") for c in calls] == [1, 1, 1] + [0] * 7
    assert all(c.count(b"flood") == ROWS for c in calls)


def test_a_call_grows_by_a_quarter_at_most(queue: RowQueue) -> None:
    """A hundred further tenants fill up the calls that wait, in order, and no row is lost."""
    add(queue, "flood", 2 * ROWS)
    for n in range(100):
        add(queue, f"t{n}")
    calls = taken(queue)
    most = ROWS + ROWS // AHEAD_PART
    assert [len(c) for c in calls[:2]] == [most, most]
    assert sum(map(len, calls)) == 2 * ROWS + 100
    assert all(len(c) <= most for c in calls)


@pytest.mark.parametrize("waiting", [0, 1, ROWS - 1])
def test_without_a_full_call_nothing_changes(queue: RowQueue, waiting: int) -> None:
    """One call takes all, in the order of arrival."""
    add(queue, "flood", waiting)
    add(queue, "victim")
    assert taken(queue) == [[b"flood"] * waiting + [b"victim"]]


def test_rows_of_another_group_do_not_join(queue: RowQueue) -> None:
    """A call of a Cluster has one slot."""
    add(queue, "flood", 2 * ROWS, group=1)
    add(queue, "victim", group=2)
    assert [set(c) for c in taken(queue)] == [{b"flood"}, {b"flood"}, {b"victim"}]
