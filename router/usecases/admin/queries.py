"""Read-only queries over NATS, answered from shared state: `get_decision` and the backpressure status."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from router.domain.answers import replayed
from router.domain.decision import Code, Refused
from router.domain.ids import assignment_id, idempotency_name, name_in, task_id, to_text
from router.domain.outcome import StoredAnswer
from router.domain.task import TaskRecord, Unreadable
from router.errors import StoreError
from router.ports.decisions import DecisionStore
from router.ports.tasks import TaskStore
from router.wire.problems import Rejected
from router.wire.reply import AssignmentState, encode, encode_stored
from router.wire.status import (
    DecisionQuery,
    Load,
    Pressure,
    Thresholds,
    decode_decision_query,
    encode_backpressure,
    pressure,
)
from router.wire.subjects import GET_DECISION, tenant_in

Answered = tuple[bytes, Mapping[str, str]]


class GetDecision:
    """Serves `beamline.router.v1.get_decision` and `….get_decision.<tenant>`, which is bound to the tenant.

    `message_index` False: no decision is found by its message alone.
    """

    def __init__(
        self,
        decisions: DecisionStore,
        tasks: TaskStore,
        *,
        on_isolation_violation: Callable[[], None],
        legacy_codes: bool = False,
        message_index: bool = True,
    ) -> None:
        self._decisions = decisions
        self._tasks = tasks
        self._on_isolation_violation = on_isolation_violation
        self._legacy_codes = legacy_codes
        self._message_index = message_index

    async def __call__(self, data: bytes, headers: Mapping[str, str], subject: str) -> Answered:
        """Return the stored decision, with its assignment's state if it was dispatched."""
        query = decode_decision_query(data, headers, tenant_in(subject, GET_DECISION))
        if isinstance(query, Rejected):
            if query.refused.code is Code.UNAUTHORIZED:
                self._on_isolation_violation()
            return self._refused(query.refused, query), {}
        try:
            remembered = await self._find(query)
            if (
                remembered is None
                and query.decision_id is not None
                and await self._decisions.exists_for_any_tenant(query.decision_id)
            ):
                return self._foreign(query)
            if remembered is None or remembered.unfinished:
                return self._refused(_not_found(query), query), {}
            record = await self._record(remembered) if remembered.pushed else None
            if record is not None and query.tenant_id not in (None, record.facts.tenant_id):
                return self._foreign(query)
        except StoreError:
            unavailable = Refused(Code.UNAVAILABLE, "the store is unavailable", {"retry_after_ms": 500})
            return self._refused(unavailable, query), {}
        answer, request_id, trace_id = replayed(remembered, explain=False), query.request_id, query.trace_id
        if record is None:
            return encode_stored(answer, request_id=request_id, trace_id=trace_id), {}
        facts = record.facts
        context = {"request_id": request_id or facts.request_id, "trace_id": trace_id or facts.trace_id}
        return encode_stored(answer, assignment=_state(record), **context), {}

    def _foreign(self, query: DecisionQuery) -> Answered:
        """Refuse another tenant's decision as unknown, so that the reply does not reveal that it exists."""
        self._on_isolation_violation()
        return self._refused(_not_found(query), query), {}

    def _refused(self, refused: Refused, query: DecisionQuery | Rejected) -> bytes:
        return encode(refused, request_id=query.request_id, trace_id=query.trace_id, legacy_codes=self._legacy_codes)

    async def _find(self, query: DecisionQuery) -> StoredAnswer | None:
        tenant = query.tenant_id
        if tenant is None:
            return await self._of_message(query.message_id or "", None)
        if query.decision_id is not None:
            remembered = await self._decisions.remembered(tenant, name_in(query.decision_id))
            return remembered if remembered is not None and remembered.decision_id == query.decision_id else None
        if query.idempotency_key is not None:
            return await self._decisions.remembered(tenant, idempotency_name(tenant, "key", query.idempotency_key))
        request_id = query.request_id or query.message_id or ""
        remembered = await self._decisions.remembered(tenant, idempotency_name(tenant, "request", request_id))
        if remembered is None and query.request_id is None:
            # The decision may have been stored under another name than its message id.
            remembered = await self._of_message(request_id, tenant)
        return remembered

    async def _of_message(self, message_id: str, tenant_id: str | None) -> StoredAnswer | None:
        """Find the decision of a message. `tenant_id` None: of any tenant, if exactly one tenant has it."""
        if not self._message_index:
            return None
        name = await self._decisions.of_message(message_id, tenant_id)
        return None if name is None else await self._decisions.remembered(*name)

    async def _record(self, remembered: StoredAnswer) -> TaskRecord | None:
        (record,) = await self._tasks.records([task_id(remembered.decision_id)])
        return None if isinstance(record, Unreadable) else record


def _state(record: TaskRecord) -> AssignmentState:
    task = task_id(record.decision_id)
    return AssignmentState(
        to_text(assignment_id(task, record.attempt)), to_text(task), record.attempt, record.state.label
    )


def _not_found(query: DecisionQuery) -> Refused:
    return Refused(
        Code.DECISION_NOT_FOUND,
        "no decision is stored under this name: it was refused, never requested, or is older than 24 hours",
        {"tenant_id": query.tenant_id},
    )


class RecentLatency:
    """The 95th percentile of the last `window_s` seconds, from the counts of a histogram.

    `without`: counts of values that do not count, by the same bounds.
    """

    def __init__(
        self, counts: Sequence[int], bounds_ms: Sequence[float], *, without: Sequence[int] = (), window_s: int = 10
    ) -> None:
        self._counts = counts
        self._without = without
        self._bounds_ms = bounds_ms
        self._history: deque[list[int]] = deque([self._current()], maxlen=window_s)

    def _current(self) -> list[int]:
        if not self._without:
            return list(self._counts)
        return [count - left_out for count, left_out in zip(self._counts, self._without, strict=True)]

    def tick(self) -> None:
        """Call once a second."""
        self._history.append(self._current())

    def p95_ms(self) -> float:
        """The upper bound of the bucket that holds the 95th percentile, in ms; 0 without recent values."""
        # A value may be counted a bucket higher by `without`: it is measured a moment later.
        recent = [max(0, now - then) for now, then in zip(self._current(), self._history[0], strict=True)]
        total = sum(recent)
        cumulative = 0
        for count, bound in zip(recent, [*self._bounds_ms, self._bounds_ms[-1] * 2], strict=True):
            cumulative += count
            if total and cumulative >= 0.95 * total:
                return bound
        return 0.0


class Backpressure:
    """Serves `beamline.router.v1.status.backpressure`, and the first line of /metrics.

    It follows admission: requests in flight, against `SHARE` of `max_in_flight`; a refusal for overload in the last
    `SHED_S`; the backlog. `latency` is that of requests without extensions: a tenant's slow extension is no load.
    `shed_for_s`: the time since the last refusal for overload, in s.
    """

    SHARE = 0.9
    SHED_S = 5.0

    def __init__(
        self,
        lag: Callable[[], int | None],
        latency: RecentLatency,
        in_flight: Callable[[], int],
        wall_ms: Callable[[], int],
        *,
        shed_for_s: Callable[[], float],
        max_in_flight: int,
        retry_after_s: int = 1,
        max_retry_attempts: int = 3,
    ) -> None:
        self._lag = lag
        self._latency = latency
        self._in_flight = in_flight
        self._wall_ms = wall_ms
        self._shed_for_s = shed_for_s
        self._thresholds = Thresholds(inflight_overload=max(1, int(self.SHARE * max_in_flight)))
        self._retry_after_s = retry_after_s
        self._max_retry_attempts = max_retry_attempts

    def _load(self) -> Load:
        shed = self._shed_for_s() < self.SHED_S
        return Load(self._lag(), self._latency.p95_ms(), self._in_flight(), shed)

    def active(self) -> bool:
        """Whether callers should slow down."""
        return pressure(self._load(), self._thresholds) is Pressure.ACTIVE

    async def __call__(self, _data: bytes, _headers: Mapping[str, str], _subject: str) -> Answered:
        """Return the current status."""
        body = encode_backpressure(
            self._load(),
            self._thresholds,
            retry_after_s=self._retry_after_s,
            max_retry_attempts=self._max_retry_attempts,
            timestamp_ms=self._wall_ms(),
        )
        return body, {}
