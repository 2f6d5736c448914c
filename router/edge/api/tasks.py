"""POST /v1/tasks: a decide request that is pushed; GET /v1/tasks/{id}: where the task is.

With `Prefer: wait=N` (RFC 7240) the answer is the task's final result, if it ends within N seconds, at most 60; else it
is 202, as without. `Location` names the task in both cases.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

import orjson

from router.domain.api_key import Asker
from router.domain.decide.decision import Code, Refused
from router.domain.ids import to_text
from router.domain.tasks.task import TaskRecord, Unreadable
from router.edge.api.decide import DecideRoutes
from router.edge.api.decisions import tenant_of
from router.edge.api.messages import Reply, invalid, refused
from router.errors import StoreError
from router.ports.finals import FinalInbox
from router.wire.request.protobuf import is_protobuf

MAX_WAIT_S = 60
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})")
_PUSHED = (None, True, 1, "true")

Records = Callable[[Sequence[bytes]], Awaitable[list[TaskRecord | Unreadable | None]]]
"""`await records(task ids)`: see `ports.tasks.TaskStore.records`."""


class TaskRoutes:
    """Pushes tasks, and says where they are."""

    def __init__(self, decide: DecideRoutes, finals: FinalInbox, records: Records) -> None:
        self._decide = decide
        self._finals = finals
        self._records = records

    async def push(self, asker: Asker, headers: Mapping[str, str], data: bytes) -> Reply:
        """Push one task, and wait for its end if the client prefers that."""
        if is_protobuf(headers.get("content-type")):
            return invalid("", "is protobuf", "send JSON, or push over NATS")
        body = _object(data)
        if isinstance(body, Reply):
            return body
        if body.get("push_assignment") not in _PUSHED:
            return invalid("push_assignment", "is false", "leave it out, or ask POST /v1/decide")
        body["push_assignment"] = True
        wait_s = wait_of(headers.get("prefer", ""))
        if not wait_s:
            return _located(await self._decide.decide(asker, headers, _bytes(body)))
        options = body["options"] = {} if body.get("options") is None else body["options"]
        if isinstance(options, dict) and options.get("result_subject") is not None:
            return invalid("options.result_subject", "cannot go with wait", "leave one of the two out")
        subject, final = self._finals.expect()
        try:
            if isinstance(options, dict):
                options["result_subject"] = subject
            accepted = _located(await self._decide.decide(asker, headers, _bytes(body)))
            if accepted.status != 202:
                return accepted
            return await _ended(accepted, final, wait_s)
        finally:
            self._finals.forget(subject)

    async def by_id(self, asker: Asker, task: str, tenant: str | None) -> Reply:
        """Say where a task is. What belongs to another tenant is not found."""
        bound = tenant_of(asker, tenant)
        if isinstance(bound, Refused):
            return refused(bound)
        try:
            raw = UUID(task).bytes
        except ValueError:
            return invalid("task_id", "is not a UUID", "send the UUID exactly as this router returned it")
        try:
            (record,) = await self._records([raw])
        except StoreError:
            return refused(Refused(Code.UNAVAILABLE, "the store is unavailable", {"retry_after_ms": 500}))
        if record is None or isinstance(record, Unreadable) or record.facts.tenant_id != bound:
            return refused(Refused(Code.DECISION_NOT_FOUND, "there is no such task of this tenant"))
        facts = {
            "task_id": task.lower(),
            "decision_id": to_text(record.decision_id),
            "request_id": record.facts.request_id,
            "provider_id": record.provider_id,
            "state": record.state.label,
            "attempt": record.attempt,
            "deadline_at_ms": record.deadline_at_ms,
        }
        return Reply(200, orjson.dumps({"ok": True, "task": facts}))


def wait_of(prefer: str) -> int:
    """Return how long a client prefers to wait, in seconds; 0: not at all."""
    match = _WAIT.search(prefer.lower())
    return 0 if match is None else min(MAX_WAIT_S, int(match[1]))


async def _ended(accepted: Reply, final: "asyncio.Future[bytes | None]", wait_s: int) -> Reply:
    """The final result, or what was accepted when it takes longer, or the pod ends."""
    applied = (*accepted.headers, (b"preference-applied", b"wait=%d" % wait_s))
    try:
        async with asyncio.timeout(wait_s):
            result = await final
    except TimeoutError:
        result = None
    return Reply(accepted.status, accepted.body, applied) if result is None else Reply(200, result, applied)


def _located(reply: Reply) -> Reply:
    """202 and the address of the task, for a request that was decided."""
    if reply.status != 200:
        return reply
    task = (orjson.loads(reply.body).get("context") or {}).get("assignment_id")
    if task is None:
        return reply
    return Reply(202, reply.body, (*reply.headers, (b"location", f"/v1/tasks/{task}".encode())))


def _object(data: bytes) -> "dict[str, object] | Reply":
    """The body as it is, half an emoji and integers of any size included: what it means is decided later."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return invalid("", "is not JSON", "send one JSON object in UTF-8")
    return body if isinstance(body, dict) else invalid("", "is not an object", "send one JSON object")


def _bytes(body: "dict[str, object]") -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
