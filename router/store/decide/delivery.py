"""Delivers the replies of calls to the callers of their rows."""

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

from router.domain.decide.outcome import Unavailable
from router.domain.ids import task_id
from router.errors import OutcomeUnknown
from router.store.decide.availability import Availability, LaneHooks
from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.calls import NOT_REPLICATED, LaneSettings
from router.store.decide.clock import RedisClock
from router.store.decide.replies import ADMITTED, HEAD, LATE, outcome

# The code of an error that a script raised, in the server's message.
_SCRIPT_ERRORS = ("user_function:", "user_script:")


class Delivery:
    """Turns replies into outcomes. `redirect` sends a batch to another node and returns whether it did; `resubmit`
    queues a row again.
    """

    def __init__(
        self,
        settings: LaneSettings,
        hooks: LaneHooks,
        availability: Availability,
        clock: RedisClock,
        *,
        redirect: Callable[[Batch, ResponseError], bool],
        resubmit: Callable[[WaitingRow], None],
    ) -> None:
        self._settings = settings
        self._hooks = hooks
        self._availability = availability
        self._clock = clock
        self._redirect = redirect
        self._resubmit = resubmit
        self._loop = asyncio.get_running_loop()
        self._unused_jobs: list[bytes] = []

    def take_unused_jobs(self) -> list[bytes]:
        """Keys of work items whose rows were refused or replayed. The next pipeline removes them, so that they need not
        wait to expire.
        """
        keys, self._unused_jobs = self._unused_jobs, []
        return keys

    @property
    def has_unused_jobs(self) -> bool:
        """Whether there are work items to remove."""
        return bool(self._unused_jobs)

    def deliver(self, calls: list[tuple[Batch, Any]], sent_s: float) -> None:
        """Answer the callers of executed calls, each given with its reply; all were sent at `sent_s`.

        :raises OutcomeUnknown: a reply has a foreign nonce; all callers were answered `Unavailable`.
        """
        for batch, reply in calls:
            if reply is NOT_REPLICATED:
                self._hooks.on_unconfirmed("decide")
                batch.answer(Unavailable(sent=True))
            elif isinstance(reply, ResponseError):
                self._refused(batch, reply)
            else:
                self._availability.call_accepted()
                self._clock.set(reply[1], reply[2], sent_s)
                for w, row in zip(batch.waiting, reply[3:], strict=True):
                    nonce, code, stamp = HEAD.unpack_from(row)
                    if nonce != w.nonce:
                        for b, _ in calls:
                            b.answer(Unavailable(sent=True))
                        raise OutcomeUnknown("a reply belongs to another request; the connection is dropped")
                    if code == LATE:
                        self._late(w)
                        continue
                    if w.job is not None and code != ADMITTED and w.attempt == 1:
                        self._unused_jobs.append(w.keys.job(task_id(w.decision)))
                    w.tell(outcome(row, code, w.decision), stamp)

    def _refused(self, batch: Batch, refusal: ResponseError) -> None:
        """Answer the callers of a refused call (out of memory, loading, a replica): nothing was executed.

        The exception is a bug in the script, whose message names a line: some rows may have been executed.
        """
        if self._redirect(batch, refusal):
            return
        why = str(refusal)
        self._availability.call_refused(why)
        batch.answer(Unavailable(sent=any(code in why for code in _SCRIPT_ERRORS)))

    def _late(self, w: WaitingRow) -> None:
        """Handle a row that arrived after its `not_after` and wrote nothing. If its caller still waits, the estimate of
        Redis time was old: send the row again, once.
        """
        self._hooks.on_late()
        if w.answered:
            return
        if not w.again and self._loop.time() * 1000 < w.expires:
            w.again = True
            self._resubmit(w)
        else:
            w.tell(Unavailable(sent=False))
