"""Does the usage stream say what was settled? Proven from the streams, one batch after the other.

    RESULT → successes → what the store settled of them → must be in USAGE exactly once, or in the outbox still
    USAGE  → each usage_id once, and of no task that ended otherwise

Results are read first, then usage; what is missing then is looked for in the outbox, and once more in what was
published meanwhile, so that a fleet under load reconciles too.
"""

import time
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from router.domain.ids import from_text, idempotency_name, name_in, task_id, task_of, to_text
from router.domain.result import ExecResult, Status
from router.domain.task import TaskRecord, TaskState
from router.ports.bus import History, Kept
from router.ports.decisions import Answers
from router.ports.tasks import TaskStore
from router.wire.assignment import UsageFacts, usage_facts
from router.wire.problems import Rejected
from router.wire.results import decode_result

_BATCH = 256
# Between the clock of a pod, which dates what it asks for, and the server's.
_CLOCKS_DIFFER_MS = 300_000


class Finding(Struct, frozen=True):
    """One event that is not as it must be."""

    what: Literal["missing", "doubled", "unearned"]
    usage_id: str
    tenant_id: str
    request_id: str | None
    times: int


class Reconciliation(Struct):
    """What was counted; `findings` empty: every settled success is metered once."""

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


class _Owner(Struct, frozen=True):
    tenant_id: str
    request_id: str | None


async def reconcile(
    results: History, usage: History, tasks: TaskStore, answers: Answers, *, since_ms: int, tenant_id: str | None = None
) -> Reconciliation:
    """Compare what was stored from `since_ms` on. Memory: one entry an event; the streams are not changed.

    :raises StoreError: Redis did not answer.
    :raises BusError: a stream could not be read.
    """
    found = Reconciliation()
    settled: dict[bytes, _Owner] = {}
    async for batch in results.read(since_ms=since_ms):
        await _settled_of(batch, tasks, answers, tenant_id, found, settled)
    found.settled = len(settled)
    began_ms = int(time.time() * 1000)
    metered = await _metered(usage, since_ms, tenant_id)
    found.usage = sum(times for times, _ in metered.values())
    found.findings += [_finding("doubled", u, m.owner, n) for u, (n, m) in metered.items() if n > 1]
    found.findings += await _unearned(tasks, [(u, m) for u, (_, m) in metered.items() if u not in settled])
    missing = [u for u in settled if u not in metered]
    waits = await _waits(tasks, missing)
    found.waiting = sum(waits)
    lost = [u for u, there in zip(missing, waits, strict=True) if not there]
    if lost:
        late = await usage.holds({to_text(u) for u in lost}, max(0, began_ms - _CLOCKS_DIFFER_MS))
        found.findings += [_finding("missing", u, settled[u], 0) for u in lost if to_text(u) not in late]
    return found


def _finding(what: Literal["missing", "doubled", "unearned"], usage_id: bytes, owner: _Owner, times: int) -> Finding:
    return Finding(what, to_text(usage_id), owner.tenant_id, owner.request_id, times)


async def _settled_of(
    batch: list[Kept],
    tasks: TaskStore,
    answers: Answers,
    tenant_id: str | None,
    found: Reconciliation,
    settled: dict[bytes, _Owner],
) -> None:
    """Add to `settled` what the store says of the successes in a batch."""
    named: list[bytes] = []
    for kept in batch:
        found.results += 1
        result = decode_result(kept.data, kept.headers)
        if isinstance(result, Rejected):
            found.unreadable += 1
        elif result.status is Status.SUCCESS:
            found.successes += 1
            if result.assignment_id is not None:
                named.append(task_of(result.assignment_id))
            else:
                named += await _undispatched(result, answers, tenant_id, found, settled)
    for task, record in zip(named, await tasks.records(named), strict=True):
        if not isinstance(record, TaskRecord):
            found.forgotten += 1
        elif tenant_id is None or record.facts.tenant_id == tenant_id:
            if record.state is TaskState.SUCCEEDED:
                settled[task] = _Owner(record.facts.tenant_id, record.facts.request_id)
            elif record.state.final:
                found.refused += 1
            else:
                found.in_progress += 1


async def _undispatched(
    result: ExecResult, answers: Answers, tenant_id: str | None, found: Reconciliation, settled: dict[bytes, _Owner]
) -> list[bytes]:
    """The same for a success that names a decision; returns its task when it was dispatched after all."""
    owner = result.tenant_id
    if owner is None or (tenant_id is not None and owner != tenant_id):
        return []
    if result.decision_id is not None:
        name = name_in(result.decision_id)
    elif result.idempotency_key is not None:
        name = idempotency_name(owner, "key", result.idempotency_key)
    else:
        name = idempotency_name(owner, "request", result.request_id or "")
    kept = await answers.remembered(owner, name)
    if kept is None:
        found.forgotten += 1
    elif kept.pushed:
        return [task_id(kept.decision_id)]
    elif kept.settled and kept.meter:
        settled[kept.decision_id] = _Owner(owner, result.request_id)
    return []


class _Metered(Struct, frozen=True):
    owner: _Owner
    dispatched: bool


async def _metered(usage: History, since_ms: int, tenant_id: str | None) -> dict[bytes, tuple[int, _Metered]]:
    """How often each usage_id is in the stream."""
    found: dict[bytes, tuple[int, _Metered]] = {}
    async for batch in usage.read(since_ms=since_ms):
        for kept in batch:
            facts = usage_facts(kept.data)
            usage_id = from_text(facts.usage_id)
            if usage_id is None or (tenant_id is not None and facts.tenant_id != tenant_id):
                continue
            times, _ = found.get(usage_id, (0, None))
            found[usage_id] = times + 1, _of(facts)
    return found


def _of(facts: UsageFacts) -> _Metered:
    return _Metered(_Owner(facts.tenant_id, facts.request_id), facts.assignment_id is not None)


async def _unearned(tasks: TaskStore, others: Sequence[tuple[bytes, _Metered]]) -> list[Finding]:
    """Of usage whose result was not read (it is older, as a rule): what belongs to a task that did not succeed."""
    found: list[Finding] = []
    dispatched = [(u, m) for u, m in others if m.dispatched]
    for at in range(0, len(dispatched), _BATCH):
        batch = dispatched[at : at + _BATCH]
        for (usage_id, metered), record in zip(batch, await tasks.records([u for u, _ in batch]), strict=True):
            if isinstance(record, TaskRecord) and record.state is not TaskState.SUCCEEDED:
                found.append(_finding("unearned", usage_id, metered.owner, 1))
    return found


async def _waits(tasks: TaskStore, usage_ids: list[bytes]) -> list[bool]:
    found: list[bool] = []
    for at in range(0, len(usage_ids), _BATCH):
        found += await tasks.usage_waits(usage_ids[at : at + _BATCH])
    return found
