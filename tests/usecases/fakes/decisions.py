"""`ports.decisions.DecisionStore` whose rows the test answers."""

from collections.abc import Callable, Sequence

from router.domain.decide.decision import PinState, Reason
from router.domain.decide.outcome import Admitted, Outcome, RequestFacts, StoredAnswer
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.tasks.steps import StepDecision
from router.domain.tasks.task import TaskRecord, Unreadable

ADMITTED = Admitted(0, Reason.WEIGHTED, b"\x00", PinState.NONE, bytes(16))


class Store:
    """Keeps rows until the test answers them; `since`: from when the wait of each counts."""

    def __init__(self) -> None:
        self.rows: list[Callable[[Outcome, bytes], None]] = []
        self.since: list[float | None] = []
        self.broken = False

    def decide(
        self,
        request: DecideRequest,
        plan: Plan,
        job: bytes | None,
        done: Callable[[Outcome, bytes], None],
        since: float | None = None,
    ) -> None:
        """Queue."""
        if self.broken:
            raise RuntimeError("a bug in the store")
        self.since.append(since)
        self.rows.append(done)

    def preview(
        self,
        request: DecideRequest,
        plan: Plan,
        done: Callable[[Outcome, bytes], None],
        *,
        claim_ms: int = 0,
        since: float | None = None,
    ) -> None:
        """Queue."""
        self.rows.append(done)

    def next_attempt(
        self,
        request: DecideRequest,
        plan: Plan,
        record: TaskRecord,
        job: bytes,
        done: Callable[[Outcome, bytes], None],
    ) -> None:
        """Not of interest here."""
        raise NotImplementedError

    def now_ms(self, tenant_id: str) -> int:
        """Any time."""
        return 0

    def new_decision_id(self, request: DecideRequest, plan: Plan) -> bytes:
        """Any id."""
        return bytes(16)

    async def of_message(self, message_id: str, tenant_id: str | None) -> tuple[str, bytes] | None:
        """Nothing is."""
        return None

    async def exists_for_any_tenant(self, decision_id: bytes) -> bool:
        """Not asked for here."""
        raise NotImplementedError

    async def remembered(self, tenant_id: str, name: bytes) -> StoredAnswer | None:
        """Nothing is."""
        return None

    async def stored_answers(self, wanted: Sequence[tuple[str, bytes]]) -> list[StoredAnswer | Unreadable | None]:
        """Nothing is."""
        return [None for _ in wanted]

    async def request_facts(self, answers: Sequence[tuple[str, StoredAnswer]]) -> list[RequestFacts | None]:
        """Nothing is known."""
        return [None for _ in answers]

    async def of_requests(self, names: Sequence[tuple[str, bytes]]) -> list[list[StepDecision] | Unreadable]:
        """Nothing is."""
        return [[] for _ in names]
