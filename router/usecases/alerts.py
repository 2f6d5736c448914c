"""Raise an alert once for the whole fleet, and say when it is over.

An episode of (condition, scope) begins and ends; in between, whoever sees it again says nothing. It ends when the
condition has not held for a while (`calm_ms`), so that what comes and goes is one episode. Its epoch is counted
in Redis, so every pod gives it the same id, and JetStream drops the others' copies: no pod needs a lock. With Redis
away the epoch is the wall clock's 10 minutes, and copies are possible. Messages are sent one after the other and kept,
in order, while NATS is away.

What turns in the store (a breaker) is seen to begin by one pod and to end by any: of that a pod remembers nothing, and
the episode that ends is the one that Redis has open.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from msgspec import Struct

from router.domain.alert import ALERTS, Alert, Condition, Severity
from router.domain.json import JsonObject
from router.errors import StoreError
from router.ports import Publication, Published, Publisher
from router.telemetry import Event, Telemetry
from router.wire.alerts import alert_subject

QUIET_MS = 600_000
_WALL_EPOCH_MS = 600_000
_MAX_WAITING = 1_000

log = logging.getLogger("router.alerts")


class Epochs(Protocol):
    """The fleet's count of episodes, by condition and scope."""

    async def begin(self, condition: str, scope: str) -> int:
        """Join the episode that is open, else open the next one; returns its number.

        :raises StoreError: Redis did not answer.
        """

    async def current(self, condition: str, scope: str) -> int | None:
        """The number of the episode that is open, if one is.

        :raises StoreError: Redis did not answer.
        """

    async def end(self, condition: str, scope: str, epoch: int) -> None:
        """Close that episode; nothing happens when another one is open by now.

        :raises StoreError: Redis did not answer.
        """


class Encode(Protocol):
    """Alert → payload and headers (CloudEvents, binary mode)."""

    def __call__(self, alert: Alert) -> tuple[bytes, dict[str, str]]:
        """Encode one alert."""


class _Step(Struct, frozen=True):
    """Something to send: an episode's beginning, or its end."""

    condition: Condition
    scope: str
    message: str
    metadata: JsonObject
    at_ms: int
    resolved: bool


class _Begun(Struct, frozen=True):
    """An episode that has its identity. `epoch` None: the wall clock's, nothing to close in the store."""

    alert_id: str
    epoch: int | None


class _Held(Struct):
    """An open episode. `ends_ms`: when it ends, unless it is seen again; `over`: what was said of its end, and when."""

    metadata: JsonObject
    ends_ms: int | None = None
    over: tuple[str, int] | None = None


class Alerts:
    """Raises and resolves. `raise_`, `resolve` and `happened` may be called from anywhere on the loop and never raise.

    `run` sends; until it runs everything waits. `wall_ms` is Unix time in ms; `calm_ms`: how long a condition must not
    have held until its episode is over.
    """

    def __init__(
        self,
        publisher: Publisher,
        epochs: Epochs,
        encode: Encode,
        telemetry: Telemetry,
        wall_ms: Callable[[], int],
        retry_s: float = 5.0,
        calm_ms: int = 0,
    ) -> None:
        self._publisher, self._epochs, self._encode = publisher, epochs, encode
        self._telemetry, self._wall_ms, self._retry_s = telemetry, wall_ms, retry_s
        self._calm_ms = calm_ms
        self._open: dict[tuple[Condition, str], _Held] = {}
        self._begun: dict[tuple[Condition, str], _Begun] = {}
        # Over, but the store could not be told: until it is, the next episode would get an id that is used up.
        self._left_open: dict[tuple[Condition, str], int] = {}
        self._waiting: deque[_Step] = deque()
        self._come, self._nudged, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle.set()

    def raise_(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """The condition holds. Only the first call of an episode says so."""
        key = condition, scope
        if (held := self._open.get(key)) is not None:
            held.ends_ms = held.over = None
            return
        kind = ALERTS[condition]
        if len(self._waiting) >= _MAX_WAITING:
            self._telemetry.alerts_lost.inc()
            log.error("%s: too many alerts wait to be sent", condition, extra={"event": Event.ALERT_LOST})
            return
        if not kind.turns:
            self._open[key] = _Held(metadata or {})
        step = _Step(condition, scope, message, metadata or {}, self._wall_ms(), resolved=False)
        self._telemetry.alerts_raised.labels(condition.value, kind.severity.value).inc()
        fields = {"event": Event.ALERT_RAISED, "condition": condition.value, "scope": scope, **step.metadata}
        log.warning(message or kind.message, extra=fields)
        self._put(step)

    def resolve(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """The condition is over, if it does not come again at once. Without an open episode nothing happens."""
        key = condition, scope
        if ALERTS[condition].turns:
            self._end(key, message, metadata or {}, self._wall_ms())
        elif (held := self._open.get(key)) is not None and held.over is None:
            held.over = message, self._wall_ms()
            held.ends_ms = held.over[1] + self._calm_ms
            self._end_quiet()
            self._come.set()

    def _end(self, key: tuple[Condition, str], message: str, metadata: JsonObject, at_ms: int) -> None:
        condition, scope = key
        fields = {"event": Event.ALERT_RESOLVED, "condition": condition.value, "scope": scope}
        log.info(message or "over", extra=fields)
        self._put(_Step(condition, scope, message, metadata, at_ms, resolved=True))

    def happened(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """For what has no end of its own: the episode is over when it did not happen for 10 minutes."""
        self.raise_(condition, scope, message, metadata)
        if (held := self._open.get((condition, scope))) is not None:
            held.ends_ms = self._wall_ms() + QUIET_MS
            self._come.set()

    def nudge(self) -> None:
        """Try again now: NATS is back."""
        self._nudged.set()
        self._come.set()

    async def sent(self) -> None:
        """Wait until nothing waits to be sent; bound it with a timeout."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send what waits, in order, for ever; cancel to stop."""
        while True:
            self._come.clear()
            self._nudged.clear()
            self._end_quiet()
            if not self._waiting:
                self._idle.set()
                await self._close_left_open()
                await _wait(self._come, self._retry_s if self._left_open else self._until_quiet_s())
            elif await self._send(self._waiting[0]):
                self._waiting.popleft()
            else:
                await _wait(self._nudged, self._retry_s)

    def _put(self, step: _Step) -> None:
        self._waiting.append(step)
        self._idle.clear()
        self._come.set()

    def _end_quiet(self) -> None:
        now = self._wall_ms()
        for key, held in [(k, h) for k, h in self._open.items() if h.ends_ms is not None and h.ends_ms <= now]:
            del self._open[key]
            message, at_ms = held.over or ("did not happen again", now)
            self._end(key, message, held.metadata, at_ms)

    def _until_quiet_s(self) -> float | None:
        moments = [h.ends_ms for h in self._open.values() if h.ends_ms is not None]
        return max(0.0, (min(moments) - self._wall_ms()) / 1000) if moments else None

    async def _send(self, step: _Step) -> bool:
        """Whether this step needs no further try."""
        key = step.condition, step.scope
        turns = ALERTS[step.condition].turns
        begun = self._begun.get(key)
        if begun is None:
            try:
                begun = await (self._ending(step) if step.resolved and turns else self._begin(step))
            except StoreError as e:
                log.debug("the end of %s waits: %s", step.condition, e, extra={"event": Event.LOG, "scope": step.scope})
                # Others need not wait for the store with it.
                self._waiting.rotate(-1)
                return False
            if begun is None:
                return True
            # Kept over retries: a second try must not begin a second episode.
            self._begun[key] = begun
        if not await self._publish(step, begun.alert_id):
            return False
        if step.resolved or turns:
            del self._begun[key]
        if step.resolved and begun.epoch is not None:
            self._left_open[key] = begun.epoch
            await self._close_left_open()
        return True

    async def _begin(self, step: _Step) -> _Begun:
        await self._close_left_open()
        try:
            epoch = await self._epochs.begin(step.condition, step.scope)
        except StoreError:
            # Decided for this case: copies are better than silence.
            return _Begun(f"{step.condition}:{step.scope}:w{step.at_ms // _WALL_EPOCH_MS}", None)
        return _Begun(f"{step.condition}:{step.scope}:{epoch}", epoch)

    async def _ending(self, step: _Step) -> _Begun | None:
        """The fleet's open episode, whoever saw it begin; None: there is none, or its end was told."""
        await self._close_left_open()
        epoch = await self._epochs.current(step.condition, step.scope)
        return None if epoch is None else _Begun(f"{step.condition}:{step.scope}:{epoch}", epoch)

    async def _close_left_open(self) -> None:
        for (condition, scope), epoch in list(self._left_open.items()):
            try:
                await self._epochs.end(condition, scope, epoch)
            except StoreError as e:
                log.debug("%s stays open in the store: %s", condition, e, extra={"event": Event.LOG, "scope": scope})
                return
            del self._left_open[condition, scope]

    async def _publish(self, step: _Step, alert_id: str) -> bool:
        kind = ALERTS[step.condition]
        severity = Severity.INFO if step.resolved else kind.severity
        metadata = {**step.metadata, "condition": step.condition.value, "scope": step.scope}
        if step.resolved:
            metadata["resolved"] = True
        message = step.message or (f"over: {kind.message}" if step.resolved else kind.message)
        alert = Alert(alert_id, step.condition, severity, kind.component, message, step.at_ms, metadata)
        payload, headers = self._encode(alert)
        message_id = f"{alert_id}:resolved" if step.resolved else alert_id
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(outcome: Published) -> None:
            if not stored.done():
                stored.set_result(bool(outcome))

        self._publisher.publish(Publication(alert_subject(severity), payload, message_id, headers), done)
        return await stored


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    """Until the event is set or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
