"""Audit of gate changes, in the fleet's log that belongs to no tenant: one record per pod and change.

A pod's first poll is recorded only if the gate is closed: a pod that starts with an open gate changes nothing.
"""

import asyncio
import logging
from collections import deque

from router.domain.audit.records import ROUTER
from router.domain.tasks.task import Action
from router.errors import StoreError
from router.ports.audit import ActLog
from router.telemetry import Event
from router.usecases.gate.gate import GateState

log = logging.getLogger("router.gate")

MAX_WAITING = 64


class GateLog:
    """Records changes in order. While the store is unavailable, the newest 64 wait; log lines report all of them."""

    def __init__(self, acts: ActLog, pod: str, *, retry_s: float = 1.0) -> None:
        self._acts, self._pod, self._retry_s = acts, pod, retry_s
        self._waiting: deque[GateState] = deque(maxlen=MAX_WAITING)
        self._has_waiting = asyncio.Event()
        self._first = True

    def changed(self, state: GateState) -> None:
        """Queue a change of the gate. Never raises."""
        first, self._first = self._first, False
        if first and state.fault is None:
            return
        self._waiting.append(state)
        self._has_waiting.set()

    async def run(self) -> None:
        """Record queued changes forever; cancel to stop."""
        while True:
            await self._has_waiting.wait()
            self._has_waiting.clear()
            while self._waiting:
                state = self._waiting[0]
                try:
                    await self._record(state)
                except StoreError as fault:
                    log.debug("gate change not recorded, it waits: %s", fault, extra={"event": Event.LOG})
                    await asyncio.sleep(self._retry_s)
                    continue
                # The queue's bound may have dropped the change during the write.
                if self._waiting and self._waiting[0] is state:
                    self._waiting.popleft()

    async def _record(self, state: GateState) -> None:
        details: dict[str, str | int | bool] = {
            "open": state.fault is None,
            "detail": state.detail,
            "pod": self._pod,
            "seen_at_ms": state.since_ms,
        }
        if state.fault is not None:
            details["reason"] = state.fault.value
        await self._acts.record(
            action=Action.GATE_CHANGED,
            by=ROUTER,
            resource_type="gate",
            resource_id=state.checkpoint,
            details=details,
        )
