"""The query `get_decision`: a stored decision, with the state of its assignment."""

from collections.abc import Callable, Mapping

from router.domain.decide.answers import replayed
from router.domain.decide.decision import Code, Refused
from router.domain.decide.outcome import StoredAnswer
from router.domain.ids import assignment_id, idempotency_name, name_in, task_id, to_text
from router.domain.tasks.task import TaskRecord, Unreadable
from router.errors import StoreError
from router.ports.bus import Reply
from router.ports.decisions import DecisionStore
from router.ports.tasks import TaskStore
from router.telemetry import Telemetry
from router.usecases.messages.input_defects import InputDefects
from router.wire.decision_query import DecisionQuery, decode_decision_query
from router.wire.problems import Rejected
from router.wire.reply import AssignmentState, encode, encode_stored
from router.wire.subjects import GET_DECISION, tenant_in


class GetDecision:
    """Serves `beamline.router.v1.get_decision` and `….get_decision.<tenant>`, which is bound to the tenant.

    `message_index` False: no decision is found by its message alone.
    """

    def __init__(
        self,
        decisions: DecisionStore,
        tasks: TaskStore,
        *,
        telemetry: Telemetry,
        on_isolation_violation: Callable[[], None],
        legacy_codes: bool = False,
        message_index: bool = True,
    ) -> None:
        self._decisions = decisions
        self._defects = InputDefects(telemetry, "query")
        self._tasks = tasks
        self._on_isolation_violation = on_isolation_violation
        self._legacy_codes = legacy_codes
        self._message_index = message_index

    async def __call__(self, data: bytes, headers: Mapping[str, str], subject: str) -> Reply:
        """Return the stored decision, with its assignment's state if it was dispatched."""
        query = decode_decision_query(data, headers, tenant_in(subject, bound=GET_DECISION))
        if isinstance(query, Rejected):
            if query.refused.code is Code.UNAUTHORIZED:
                self._on_isolation_violation()
            return self._refused(query.refused, query), {}
        if query.warnings:
            self._defects.count(query.warnings, query.tenant_id)
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

    def _foreign(self, query: DecisionQuery) -> Reply:
        """Refuse another tenant's decision as unknown, so that the reply does not reveal that it exists."""
        self._on_isolation_violation()
        return self._refused(_not_found(query), query), {}

    def _refused(self, refused: Refused, query: DecisionQuery | Rejected) -> bytes:
        return encode(refused, request_id=query.request_id, trace_id=query.trace_id, legacy_codes=self._legacy_codes)

    async def _find(self, query: DecisionQuery) -> StoredAnswer | None:
        tenant = query.tenant_id
        if tenant is None:
            return await self._of_message(query.message_id or "", tenant_id=None)
        if query.decision_id is not None:
            remembered = await self._decisions.remembered(tenant, name_in(query.decision_id))
            return remembered if remembered is not None and remembered.decision_id == query.decision_id else None
        if query.idempotency_key is not None:
            return await self._decisions.remembered(tenant, idempotency_name(tenant, "key", query.idempotency_key))
        request_id = query.request_id or query.message_id or ""
        remembered = await self._decisions.remembered(tenant, idempotency_name(tenant, "request", request_id))
        if remembered is None and query.request_id is None:
            # The decision may have been stored under another name than its message id.
            remembered = await self._of_message(request_id, tenant_id=tenant)
        return remembered

    async def _of_message(self, message_id: str, *, tenant_id: str | None) -> StoredAnswer | None:
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
        assignment_id=to_text(assignment_id(task, record.attempt)),
        task_id=to_text(task),
        attempt=record.attempt,
        state=record.state.label,
    )


def _not_found(query: DecisionQuery) -> Refused:
    return Refused(
        Code.DECISION_NOT_FOUND,
        "no decision is stored under this name: it was refused, never requested, or is older than 24 hours",
        {"tenant_id": query.tenant_id},
    )
