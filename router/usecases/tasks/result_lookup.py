"""Finds the decision or task that each result belongs to.

assignment_id            the task, by its delivery record
decision_id              the decision; if it was dispatched, its task
context with a step      the decision of exactly that step of the request
request alone            `domain.tasks.steps.choose` among all decisions of the request
"""

from collections.abc import Sequence

from msgspec.structs import replace

from router.domain.decide.outcome import StoredAnswer
from router.domain.ids import idempotency_name, name_in, task_id, task_of
from router.domain.tasks.result import ExecResult
from router.domain.tasks.steps import Ambiguous, StepDecision, choose, mark_of
from router.domain.tasks.task import TaskRecord, Unreadable
from router.ports.decisions import DecisionStore
from router.ports.tasks import TaskStore
from router.usecases.tasks.open_result import OpenResult

Reading = tuple[OpenResult, bytes]


class ResultLookup:
    """Looks up a batch of results: one round trip for decisions, one for records of tasks.

    Callers that have walked the fallbacks of a request cost one more, and so does an id that is unknown under its
    tenant, because it may belong to another tenant. A result that names no request, of a decision that is not metered,
    costs two: audit records name the request, too.
    """

    def __init__(self, tasks: TaskStore, decisions: DecisionStore) -> None:
        self._tasks = tasks
        self._decisions = decisions

    async def look_up(self, all_opened: Sequence[OpenResult]) -> list[OpenResult]:
        """Set record, stored answer or ambiguity of each result. Returns the results that must be looked up again.

        Those may belong to the same decision as an earlier result of the batch: they come after it is settled.

        :raises StoreError: Redis did not answer.
        """
        exact, by_request = _sorted(all_opened)
        reading = [(o, task_of(o.result.assignment_id)) for o in all_opened if o.result.assignment_id is not None]
        if exact:
            reading += await self._read_exact(exact)
        if by_request:
            reading += await self._read_requests(by_request)
        tasks = list(dict.fromkeys(task for _, task in reading))
        records = dict(zip(tasks, await self._tasks.records(tasks) if tasks else [], strict=True))
        for opened, task in reading:
            if opened.walk:
                _set_record(opened, task, records[task])
            else:
                opened.set_record(records[task])
        for opened, _ in exact:
            decision_id = opened.result.decision_id
            unknown = opened.record is None and opened.remembered is None and not opened.unreadable
            if decision_id is not None and unknown:
                opened.foreign = await self._decisions.exists_for_any_tenant(decision_id)
        deferred = _choose(all_opened)
        await self._name_requests(all_opened)
        return deferred

    async def _name_requests(self, all_opened: Sequence[OpenResult]) -> None:
        """Add what the audit log says of its request to an answer that does not hold it, unless the result names it."""
        nameless: list[OpenResult] = []
        answers: list[tuple[str, StoredAnswer]] = []
        for opened in all_opened:
            answer, tenant_id = opened.remembered, opened.result.tenant_id
            if answer is None or tenant_id is None or opened.record is not None or opened.result.request_id is not None:
                continue
            if answer.facts is None and not answer.pushed:
                nameless.append(opened)
                answers.append((tenant_id, answer))
        for opened, (_, answer), facts in zip(
            nameless, answers, await self._decisions.request_facts(answers) if answers else [], strict=True
        ):
            opened.remembered = replace(answer, facts=facts)

    async def _read_exact(self, exact: list[tuple[OpenResult, tuple[str, bytes]]]) -> list[Reading]:
        """Read the answers that results name exactly. Returns the tasks whose records must be read."""
        reading: list[Reading] = []
        answers = await self._decisions.stored_answers([names for _, names in exact])
        for (opened, _), remembered in zip(exact, answers, strict=True):
            decision_id = opened.result.decision_id
            if isinstance(remembered, Unreadable):
                opened.set_record(remembered)
            elif remembered is not None and decision_id in (None, remembered.decision_id):
                opened.remembered = remembered
                if remembered.pushed:
                    # The decision was dispatched: the task's record is decisive.
                    reading.append((opened, task_id(remembered.decision_id)))
            elif remembered is None and decision_id is not None:
                # The decision may be another tenant's: the record of its task names the owner.
                reading.append((opened, task_id(decision_id)))
        return reading

    async def _read_requests(self, by_request: list[tuple[OpenResult, tuple[str, bytes]]]) -> list[Reading]:
        """Read all decisions of the requests that results name. Returns the tasks whose records must be read."""
        reading: list[Reading] = []
        # Results of one request come together: its decisions are read once.
        names = list(dict.fromkeys(name for _, name in by_request))
        requests = dict(zip(names, await self._decisions.of_requests(names), strict=True))
        for opened, name in by_request:
            decisions = requests[name]
            if isinstance(decisions, Unreadable):
                opened.set_record(decisions)
                continue
            opened.mark = mark_of(opened.delivery.sequence, opened.delivery.data)
            if any(d.is_step for d in decisions):
                # No caller has received an unfinished decision, so no result can be of it.
                opened.walk = [d for d in decisions if not d.answer.unfinished] or decisions
            elif decisions:
                opened.remembered = decisions[0].answer
            pushed = [d.answer for d in decisions if d.answer.pushed]
            reading += [(opened, task_id(answer.decision_id)) for answer in pushed]
        return reading


def _sorted(
    all_opened: Sequence[OpenResult],
) -> tuple[list[tuple[OpenResult, tuple[str, bytes]]], list[tuple[OpenResult, tuple[str, bytes]]]]:
    """The results of undispatched decisions: those that name one exactly, and those that name only a request."""
    exact: list[tuple[OpenResult, tuple[str, bytes]]] = []
    by_request: list[tuple[OpenResult, tuple[str, bytes]]] = []
    for opened in all_opened:
        r = opened.result
        if r.assignment_id is None and r.tenant_id is not None:
            name = _name(r, r.tenant_id)
            if name is not None:
                only_request = r.decision_id is None and r.step is None
                (by_request if only_request else exact).append((opened, (r.tenant_id, name)))
    return exact, by_request


def _name(result: ExecResult, tenant_id: str) -> bytes | None:
    """The name under which the store keeps the decision that a result names; None: it names none."""
    if result.decision_id is not None:
        return name_in(result.decision_id)
    step = "" if result.step is None else result.step.key
    if result.idempotency_key is not None:
        return idempotency_name(tenant_id, "key", result.idempotency_key, step=step)
    return None if result.request_id is None else idempotency_name(tenant_id, "request", result.request_id, step=step)


def _set_record(opened: OpenResult, task: bytes, record: TaskRecord | Unreadable | None) -> None:
    """Add the record of a task to its decision among those of a walk."""
    if isinstance(record, Unreadable):
        opened.set_record(record)
    else:
        opened.walk = [replace(d, record=record) if _is_of(d, task) else d for d in opened.walk]


def _is_of(decision: StepDecision, task: bytes) -> bool:
    return decision.answer.pushed and task_id(decision.answer.decision_id) == task


def _choose(all_opened: Sequence[OpenResult]) -> list[OpenResult]:
    """Choose the decisions of results that name only a request.

    Returns the results that have to wait: the batch then ends as if its results had come one after another.
    """
    taken: set[bytes] = set()
    blocked: set[bytes] = set()
    deferred: list[OpenResult] = []
    for opened in all_opened:
        walked = [d.answer.decision_id for d in opened.walk]
        if not taken.isdisjoint(walked) or opened.decision_id in blocked:
            blocked.update(walked)
            opened.forget()
            deferred.append(opened)
            continue
        if walked and not opened.unreadable:
            chosen = choose(opened.walk, opened.result.provider_id, opened.mark)
            if isinstance(chosen, Ambiguous):
                opened.ambiguous = chosen
            else:
                opened.remembered, opened.record, opened.was_open = chosen.answer, chosen.record, chosen.open
        repeats = walked and not opened.was_open
        if opened.decision_id is not None and not repeats:
            taken.add(opened.decision_id)
    return deferred
