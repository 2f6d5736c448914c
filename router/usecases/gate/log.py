"""Turns of the gate in the audit log that belongs to no tenant, one record a pod and turn.

The first look of a pod is a turn only if it closes the gate: a pod that starts with all features turns nothing.
"""

import asyncio
import logging
from collections import deque

from router.domain.audit import ROUTER
from router.domain.task import Action
from router.errors import StoreError
from router.ports.audit import ActLog
from router.telemetry import Event
from router.usecases.gate.gate import GateState

log = logging.getLogger("router.gate")

MAX_WAITING = 64


class GateLog:
    """Records turns in order. While the store is away the newest 64 wait; the log lines have them all."""

    def __init__(self, acts: ActLog, pod: str, *, retry_s: float = 1.0) -> None:
        self._acts, self._pod, self._retry_s = acts, pod, retry_s
        self._waiting: deque[GateState] = deque(maxlen=MAX_WAITING)
        self._come = asyncio.Event()
        self._first = True

    def changed(self, state: GateState) -> None:
        """The gate turned. Never raises."""
        first, self._first = self._first, False
        if first and state.fault is None:
            return
        self._waiting.append(state)
        self._come.set()

    async def run(self) -> None:
        """Record what waits, for ever; cancel to stop."""
        while True:
            await self._come.wait()
            self._come.clear()
            while self._waiting:
                state = self._waiting[0]
                try:
                    await self._record(state)
                except StoreError as fault:
                    log.debug("a turn of the gate is recorded later: %s", fault, extra={"event": Event.LOG})
                    await asyncio.sleep(self._retry_s)
                    continue
                # The bound may have dropped it meanwhile.
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
        await self._acts.record(Action.GATE_CHANGED, ROUTER, "gate", state.checkpoint, details)
