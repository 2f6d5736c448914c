"""Rows that wait for the next call of a lane, and the number of rows that a call may have."""

from router.domain.decide.outcome import Unavailable
from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.calls import LaneSettings
from router.store.decide.rows import RowPacker

_MIN_ROWS = 32
AHEAD_PART = 4
"""A full batch takes a quarter more rows, of tenants that have none in it."""


class RowQueue:
    """One open batch per group, and the batches that are full.

    A large call blocks Redis for everyone. So the number of rows in a batch is limited to what fits the time budget of
    a call, by the measured cost of a row.

    While full batches wait, a row joins the first of them that has no row of its tenant yet. So a tenant that asks now
    and then waits for the next call, not behind everything that another tenant has queued.
    """

    def __init__(self, packer: RowPacker, settings: LaneSettings) -> None:
        self._packer = packer
        self._settings = settings
        self._open: dict[int, Batch] = {}
        self._full: list[Batch] = []
        self._nonce = 0
        self._max_rows = settings.max_rows
        self._row_ms = 0.0

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._open and not self._full

    def add(self, w: WaitingRow, not_after: float) -> None:
        """Pack a row into its group's batch. It writes nothing after `not_after` (Redis ms).

        :raises Exception: any bug of the packer, about this row only.
        """
        self._nonce = nonce = (self._nonce + 1) & 0xFFFFFFFF
        if self._full and (ahead := self._ahead(w)) is not None:
            self._packer.add(ahead, w, nonce, not_after)
            return
        batch = self._open.get(w.group)
        if batch is None:
            batch = self._open[w.group] = Batch()
        self._packer.add(batch, w, nonce, not_after)
        if len(batch.rows) >= self._max_rows or batch.size >= self._settings.max_bytes:
            self._full.append(self._open.pop(w.group))

    def _ahead(self, w: WaitingRow) -> Batch | None:
        """The first full batch that takes a row of a tenant which has none in it; None: there is none."""
        tenant_id = w.request.tenant_id
        max_rows = self._max_rows + max(1, self._max_rows // AHEAD_PART)
        for batch in self._full:
            if (
                tenant_id not in batch.tenants
                and len(batch.rows) < max_rows
                and batch.size < self._settings.max_bytes
                and batch.waiting[0].group == w.group
            ):
                return batch
        return None

    def put(self, batch: Batch) -> None:
        """Queue a packed batch before all others: its rows have been sent once and wait longest."""
        self._full.insert(0, batch)

    def take(self) -> list[Batch]:
        """The batches of the next pipeline: at most one per group, so that no partition has two calls in flight."""
        if len(self._open) + len(self._full) == 1:
            batches = self._full or list(self._open.values())
            self._full, self._open = [], {}
            return batches
        if self._full:
            # A full batch may be followed by another of its group; one per pipeline is enough.
            return [self._full.pop(0)]
        batches = list(self._open.values())
        self._open = {}
        return batches

    def batches(self) -> list[Batch]:
        """All batches that wait."""
        return [*self._full, *self._open.values()]

    def refuse(self) -> None:
        """Answer every waiting row `Unavailable`; none was sent."""
        batches = self.batches()
        self._full, self._open = [], {}
        for b in batches:
            b.answer(Unavailable(sent=False))

    def learn(self, call_ms: float, rows: int) -> None:
        """Adapt the limit to the time that a call took. Calls of few rows are ignored: their fixed cost dominates."""
        if rows >= _MIN_ROWS // 2:
            # The quickest of the recent calls: a pause of the machine is no cost of a row.
            self._row_ms = min(self._row_ms * 1.02, call_ms / rows) if self._row_ms else call_ms / rows
            fit = int(self._settings.call_budget_ms / self._row_ms)
            self._max_rows = max(_MIN_ROWS, min(self._settings.max_rows, fit))
