"""Comparison of the usage stream with the settled results, read from the streams batch by batch.

    RESULT → successes → settled in the store → exactly once in USAGE, or still in the outbox
    USAGE  → each usage_id once, and only for tasks that succeeded

Results are read first, then usage. A usage event that is still missing is looked up in the outbox, and then in the
part of USAGE that was published meanwhile. So a fleet under load reconciles too.
"""

import time
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from router.chunks import chunks
from router.domain.ids import from_text, idempotency_name, name_in, task_id, task_of, to_text
from router.domain.tasks.result import ExecResult, ResultStatus
from router.domain.tasks.task import TaskRecord, TaskState
from router.ports.bus import History, StoredMessage
from router.ports.decisions import Answers
from router.ports.tasks import TaskStore
from router.wire.assignment import UsageIdentity, usage_identity
from router.wire.problems import Rejected
from router.wire.subjects import RESULT, tenant_bound
from router.wire.worker.results import decode_result

_BATCH = 256
# Allowed difference between this machine's clock and the NATS server's, which dates the messages.
_MAX_CLOCK_SKEW_MS = 300_000


class Finding(Struct, frozen=True):
    """A usage event that is missing, stored more than once, or belongs to a task that did not succeed."""

    what: Literal["missing", "doubled", "unearned"]
    usage_id: str
    tenant_id: str
    request_id: str | None
    times: int


class Reconciliation(Struct):
    """Counts of a comparison. Without `findings`, every settled success is metered exactly once."""

    results: int = 0
    successes: int = 0
    settled: int = 0
    in_progress: int = 0
    refused: int = 0
    forgotten: int = 0
    unreadable: int = 0
    usage: int = 0
    waiting: int = 0
    findings: list[Finding] = []


class _Owner(Struct, frozen=True, kw_only=True):
    tenant_id: str
    request_id: str | None


async def reconcile(
    results: History, *, usage: History, tasks: TaskStore, answers: Answers, since_ms: int, tenant_id: str | None = None
) -> Reconciliation:
    """Compare the messages since `since_ms` (Unix time); reads only. Memory: one entry per event.

    :raises StoreError: Redis did not answer.
    :raises BusError: a stream could not be read.
    """
    totals = Reconciliation()
    settled: dict[bytes, _Owner] = {}
    async for batch in results.read(since_ms=since_ms):
        await _add_settled(
            batch=batch, tasks=tasks, answers=answers, tenant_id=tenant_id, totals=totals, settled=settled
        )
    totals.settled = len(settled)
    began_ms = int(time.time() * 1000)
    metered = await _metered(usage, since_ms, tenant_id)
    totals.usage = sum(times for times, _ in metered.values())
    totals.findings += [_finding("doubled", u, m.owner, n) for u, (n, m) in metered.items() if n > 1]
    totals.findings += await _unearned(tasks, [(u, m) for u, (_, m) in metered.items() if u not in settled])
    missing = [u for u in settled if u not in metered]
    in_outbox = await _in_outbox(tasks, missing)
    totals.waiting = sum(in_outbox)
    lost = [u for u, waits in zip(missing, in_outbox, strict=True) if not waits]
    if lost:
        late = await usage.stored_ids({to_text(u) for u in lost}, max(0, began_ms - _MAX_CLOCK_SKEW_MS))
        totals.findings += [_finding("missing", u, settled[u], 0) for u in lost if to_text(u) not in late]
    return totals


def _finding(what: Literal["missing", "doubled", "unearned"], usage_id: bytes, owner: _Owner, times: int) -> Finding:
    return Finding(
        what=what, usage_id=to_text(usage_id), tenant_id=owner.tenant_id, request_id=owner.request_id, times=times
    )


async def _add_settled(
    *,
    batch: list[StoredMessage],
    tasks: TaskStore,
    answers: Answers,
    tenant_id: str | None,
    totals: Reconciliation,
    settled: dict[bytes, _Owner],
) -> None:
    """Add the successes of a batch that the store has settled to `settled`, and count the others in `totals`."""
    task_ids: list[bytes] = []
    for message in batch:
        totals.results += 1
        result = decode_result(message.data, message.headers, tenant_bound(message.subject, open_subject=RESULT))
        if isinstance(result, Rejected):
            totals.unreadable += 1
        elif result.status is ResultStatus.SUCCESS:
            totals.successes += 1
            if result.assignment_id is not None:
                task_ids.append(task_of(result.assignment_id))
            else:
                task_ids += await _add_undispatched(
                    result=result, answers=answers, tenant_id=tenant_id, totals=totals, settled=settled
                )
    for task, record in zip(task_ids, await tasks.records(task_ids), strict=True):
        if not isinstance(record, TaskRecord):
            totals.forgotten += 1
        elif tenant_id is None or record.facts.tenant_id == tenant_id:
            if record.state is TaskState.SUCCEEDED:
                settled[task] = _Owner(tenant_id=record.facts.tenant_id, request_id=record.facts.request_id)
            elif record.state.final:
                totals.refused += 1
            else:
                totals.in_progress += 1


async def _add_undispatched(
    *,
    result: ExecResult,
    answers: Answers,
    tenant_id: str | None,
    totals: Reconciliation,
    settled: dict[bytes, _Owner],
) -> list[bytes]:
    """Do the same for a success that names a decision; return its task id if the decision was dispatched."""
    owner = result.tenant_id
    if owner is None or (tenant_id is not None and owner != tenant_id):
        return []
    if result.decision_id is not None:
        name = name_in(result.decision_id)
    elif result.idempotency_key is not None:
        name = idempotency_name(owner, "key", result.idempotency_key)
    else:
        name = idempotency_name(owner, "request", result.request_id or "")
    remembered = await answers.remembered(owner, name)
    if remembered is None:
        totals.forgotten += 1
    elif remembered.pushed:
        return [task_id(remembered.decision_id)]
    elif remembered.settled and remembered.meter:
        settled[remembered.decision_id] = _Owner(tenant_id=owner, request_id=result.request_id)
    return []


class _Metered(Struct, frozen=True):
    owner: _Owner
    dispatched: bool


async def _metered(usage: History, since_ms: int, tenant_id: str | None) -> dict[bytes, tuple[int, _Metered]]:
    """The number of events in the stream per usage_id, with the owner."""
    metered: dict[bytes, tuple[int, _Metered]] = {}
    async for batch in usage.read(since_ms=since_ms):
        for message in batch:
            facts = usage_identity(message.data)
            usage_id = from_text(facts.usage_id)
            if usage_id is None or (tenant_id is not None and facts.tenant_id != tenant_id):
                continue
            times, _ = metered.get(usage_id, (0, None))
            metered[usage_id] = times + 1, _metered_from(facts)
    return metered


def _metered_from(facts: UsageIdentity) -> _Metered:
    return _Metered(_Owner(tenant_id=facts.tenant_id, request_id=facts.request_id), facts.assignment_id is not None)


async def _unearned(tasks: TaskStore, others: Sequence[tuple[bytes, _Metered]]) -> list[Finding]:
    """The usage of tasks that did not succeed, among events whose result was not read (usually an older one)."""
    findings: list[Finding] = []
    dispatched = [(u, m) for u, m in others if m.dispatched]
    for batch in chunks(dispatched, _BATCH):
        for (usage_id, metered), record in zip(batch, await tasks.records([u for u, _ in batch]), strict=True):
            if isinstance(record, TaskRecord) and record.state is not TaskState.SUCCEEDED:
                findings.append(_finding("unearned", usage_id, metered.owner, 1))
    return findings


async def _in_outbox(tasks: TaskStore, usage_ids: list[bytes]) -> list[bool]:
    waits: list[bool] = []
    for batch in chunks(usage_ids, _BATCH):
        waits += await tasks.usage_is_waiting(batch)
    return waits
