"""Handlers of job types: how they are registered, what they are given, and what comes of one."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from router.domain.json import JsonValue
from router.worker.messages import Assignment, Finished

log = logging.getLogger(__name__)

ANY_TYPE = "*"
LATE = Finished("timeout", error_code="TIMEOUT", error_message="the deadline passed")

P = TypeVar("P")


class Job(Struct, Generic[P], frozen=True):
    """One attempt of one task, as its handler sees it. `deadline_at_ms` is Unix time; None: no deadline was given.

    `assignment_id` is another one for every attempt, `task_id` the same: work that must not be done twice is known by
    it.
    """

    type: str
    payload: P
    assignment_id: str
    task_id: str
    attempt: int
    request_id: str
    tenant_id: str
    provider_id: str
    payload_ref: str | None = None
    deadline_at_ms: int | None = None
    trace_id: str | None = None

    @property
    def time_left_s(self) -> float | None:
        """Seconds until the deadline, never below 0; None without one."""
        return None if self.deadline_at_ms is None else max(0.0, self.deadline_at_ms / 1000 - time.time())


class Done(Struct, frozen=True):
    """A success with its figures; a handler may as well return the bare output. Cost in USD; None: as was expected."""

    output: JsonValue = None
    cost: float | None = None
    tokens: int | None = None


class Failed(Exception):
    """The attempt has failed; the router may start the next one.

    Codes that count against the provider: TIMEOUT, CONNECTION_ERROR, PROVIDER_UNAVAILABLE, SERVER_ERROR, HTTP_5xx.
    `status` is error, timeout or cancelled; cost in USD.
    """

    def __init__(self, code: str, message: str = "", *, status: str = "error", cost: float | None = None) -> None:
        super().__init__(message or code)
        self.code, self.message, self.status, self.cost = code, message, status, cost


class Rejected(Exception):
    """This worker will not do it: no result, and the next attempt begins at once. The provider is not to blame."""


Handler = Callable[[Job[Any]], Awaitable[Any]]


class _Registered(Struct, frozen=True):
    handler: Handler
    payload: type[Any]


class Handlers:
    """The job types that a worker knows."""

    def __init__(self) -> None:
        self._known: dict[str, _Registered] = {}

    @property
    def types(self) -> list[str]:
        """Their names, sorted."""
        return sorted(self._known)

    def add(self, job_type: str, handler: Handler, payload: type[Any]) -> None:
        """Register a handler.

        :raises ValueError: the type has one already.
        """
        if job_type in self._known:
            raise ValueError(f"job type {job_type!r} has a handler already")
        self._known[job_type] = _Registered(handler, payload)

    def takes(self, job_type: str) -> bool:
        """Whether there is a handler for it."""
        return job_type in self._known or ANY_TYPE in self._known

    async def run(self, assignment: Assignment, timeout_s: float | None) -> Finished:
        """Run one assignment that it takes, within `timeout_s`. What else the handler raises is an error result.

        :raises Rejected: the handler will not do it.
        """
        known = self._known.get(assignment.job.type) or self._known[ANY_TYPE]
        if timeout_s is not None and timeout_s <= 0:
            return LATE
        try:
            payload = msgspec.convert(assignment.job.payload, known.payload)
        except msgspec.ValidationError as e:
            return Finished("error", error_code="BAD_PAYLOAD", error_message=str(e))
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return _success(await known.handler(_job(assignment, payload)))
        except Rejected:
            raise
        except Failed as e:
            return Finished(e.status, error_code=e.code, error_message=e.message or None, cost=e.cost)
        except Exception as e:  # a handler's bug is a result like any other: the task must end
            if limit.expired():
                return LATE
            log.exception("the handler of %r failed", assignment.job.type)
            return Finished("error", error_code="WORKER_ERROR", error_message=f"{type(e).__name__}: {e}")


def _job(a: Assignment, payload: P) -> Job[P]:
    return Job(
        a.job.type,
        payload,
        a.assignment_id,
        a.task_id or a.assignment_id,
        a.attempt,
        a.request_id,
        a.tenant_id,
        a.executor.provider_id,
        a.job.payload_ref,
        a.deadline_at_ms,
        a.trace_id,
    )


def _success(value: object) -> Finished:
    if isinstance(value, Done):
        return Finished("success", value.output, cost=value.cost, tokens=value.tokens)
    return Finished("success", msgspec.to_builtins(value, str_keys=True))
