"""A dispatched task, and the moves that a pod makes for it."""

from typing import Any

from router.domain.decide.outcome import Admitted, Reservation
from router.domain.decide.request import Options
from router.domain.ids import task_id
from router.domain.policy.model import (
    Breaker,
    Limit,
    StoredPolicy,
    provider_entry,
)
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import Action, Correction, Move, TaskState
from tests.store.harness import FEATURES, Store, request

DEADLINE = 30_000
TRIP = Breaker(failure_threshold=1)
KEEP = 7_200_000


class Task:
    """A dispatched task of a fresh tenant, and the moves that a pod makes for it."""

    def __init__(self, store: Store, stored: StoredPolicy, *, tokens: int = 0) -> None:
        self.store = store
        self.tenant = store.tenant()
        self.stored = stored
        self.charged_ms = store.now
        made = store.one(
            request(self.tenant, "r", push=True, options=Options(deadline_ms=DEADLINE, estimate_tokens=tokens)),
            stored,
            b"work",
        )
        assert isinstance(made, Admitted)
        self.decision = made.decision_id
        self.id = task_id(made.decision_id)

    def published(self) -> Move:
        """The assignment is out; the deadline is due next."""
        return Move(
            self.tenant,
            self.decision,
            Action.ASSIGNMENT_PUBLISHED,
            FEATURES,
            task_id=self.id,
            attempt=1,
            before_state=TaskState.PUBLISHED,
            state=TaskState.PUBLISHED,
            due_ms=self.store.now + DEADLINE,
        )

    def ended(self, state: TaskState = TaskState.SUCCEEDED, *, attempt: int = 1, **more: Any) -> Move:
        """A result."""
        verdict = BreakerVerdict.SUCCESS if state is TaskState.SUCCEEDED else BreakerVerdict.FAILURE
        options: dict[str, Any] = {
            "verdict": verdict,
            "breaker": TRIP,
            "provider_entry": provider_entry("a"),
            "usage": b"usage",
            "charged_ms": self.charged_ms,
        }
        return Move(
            self.tenant,
            self.decision,
            Action.RESULT_SETTLED,
            FEATURES,
            task_id=self.id,
            attempt=attempt,
            state=state,
            keep_ms=KEEP,
            **(options | more),
        )

    def due(self) -> object:
        """When somebody will look at it."""
        return self.store.client.zscore(self.store.of(self.tenant).due, self.id)

    def outbox(self) -> dict[bytes, bytes]:
        """Usage to publish."""
        found: dict[bytes, bytes] = self.store.client.hgetall(  # type: ignore[assignment]
            self.store.keys.outbox(self.store.of(self.tenant).partition)
        )
        return found


def correction(delta: int, of: Limit, owner: str = "") -> Correction:
    """`delta` units against a limit."""
    return Correction(Reservation(of.scope, owner, of.resource, of.entry, of.window_ms, 0), owner, delta)
