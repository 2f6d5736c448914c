"""Handlers of job types: registration, the `Job` that a handler receives, and the outcome of a run."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from router.domain.json import JsonValue
from router.worker.messages import Assignment, Finished

log = logging.getLogger(__name__)

ANY_TYPE = "*"
DEADLINE_PASSED = Finished("timeout", error_code="TIMEOUT", error_message="the deadline passed")

P = TypeVar("P")


class Job(Struct, Generic[P], frozen=True):
    """One attempt of a task, as its handler receives it. `deadline_at_ms` is Unix time; None: no deadline.

    All attempts of a task have the same `task_id`; each has its own `assignment_id`. Use `task_id` to detect work that
    must not be done twice.
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
    timeout_added: bool = False
    """Whether the router added `timeout_ms` to the payload, for workers that know no `deadline_at_ms`."""

    @property
    def time_left_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None without a deadline."""
        return None if self.deadline_at_ms is None else max(0.0, self.deadline_at_ms / 1000 - time.time())


class Done(Struct, frozen=True):
    """A success with cost and tokens; without them a handler can return the bare output.

    `cost` is in USD; None: the cost that the decision expected. `tokens`: their number, or their parts by name: input,
    output, total.
    """

    output: JsonValue = None
    cost: float | None = None
    tokens: int | Mapping[str, int] | None = None


class Failed(Exception):
    """The attempt failed; the router may start the next attempt.

    These codes count against the provider: TIMEOUT, CONNECTION_ERROR, PROVIDER_UNAVAILABLE, SERVER_ERROR, HTTP_5xx.
    `status` is error, timeout or cancelled; `cost` is in USD.
    """

    def __init__(self, code: str, message: str = "", *, status: str = "error", cost: float | None = None) -> None:
        super().__init__(message or code)
        self.code, self.message, self.status, self.cost = code, message, status, cost


class Rejected(Exception):
    """This worker refuses the job: it reports no result and the next attempt starts at once.

    A rejection does not count against the provider.
    """


Handler = Callable[[Job[Any]], Awaitable[Any]]


class _Registered(Struct, frozen=True):
    handler: Handler
    payload: type[Any]


class Handlers:
    """The handlers of a worker, by job type."""

    def __init__(self) -> None:
        self._by_type: dict[str, _Registered] = {}

    @property
    def types(self) -> list[str]:
        """The registered job types, sorted."""
        return sorted(self._by_type)

    def add(self, job_type: str, handler: Handler, payload: type[Any]) -> None:
        """Register a handler.

        :raises ValueError: the type has a handler already.
        """
        if job_type in self._by_type:
            raise ValueError(f"job type {job_type!r} has a handler already: register each type once")
        self._by_type[job_type] = _Registered(handler, payload)

    def handles(self, job_type: str) -> bool:
        """Whether there is a handler for the type: its own, or the one of `ANY_TYPE`."""
        return job_type in self._by_type or ANY_TYPE in self._by_type

    async def run(self, assignment: Assignment, timeout_s: float | None) -> Finished:
        """Run the handler of an assignment within `timeout_s`; None: no limit. There must be a handler (`handles`).

        An exception other than `Rejected` becomes an error result.

        :raises Rejected: the handler refuses the job.
        """
        registered = self._by_type.get(assignment.job.type) or self._by_type[ANY_TYPE]
        if timeout_s is not None and timeout_s <= 0:
            return DEADLINE_PASSED
        try:
            payload = msgspec.convert(assignment.job.payload, registered.payload)
        except msgspec.ValidationError as e:
            return Finished("error", error_code="BAD_PAYLOAD", error_message=str(e))
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                return _success(await registered.handler(_job(assignment, payload)))
        except Rejected:
            raise
        except Failed as e:
            return Finished(e.status, error_code=e.code, error_message=e.message or None, cost=e.cost)
        except Exception as e:  # a bug in a handler becomes a result too: the task must end
            if deadline.expired():
                return DEADLINE_PASSED
            log.exception("handler failed: job type %r", assignment.job.type)
            return Finished("error", error_code="WORKER_ERROR", error_message=f"{type(e).__name__}: {e}")


def _job(a: Assignment, payload: P) -> Job[P]:
    return Job(
        type=a.job.type,
        payload=payload,
        assignment_id=a.assignment_id,
        task_id=a.task_id or a.assignment_id,
        attempt=a.attempt,
        request_id=a.request_id,
        tenant_id=a.tenant_id,
        provider_id=a.executor.provider_id,
        payload_ref=a.job.payload_ref,
        deadline_at_ms=a.deadline_at_ms,
        trace_id=a.trace_id,
        timeout_added=a.timeout_added,
    )


def _success(output: object) -> Finished:
    if isinstance(output, Done):
        return Finished("success", output.output, cost=output.cost, tokens=output.tokens)
    return Finished("success", msgspec.to_builtins(output, str_keys=True))
