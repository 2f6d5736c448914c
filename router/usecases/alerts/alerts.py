"""Raise an alert once for the whole fleet, and say when it is over.

An episode of (condition, scope) begins and ends; in between, whoever sees it again says nothing. It ends when the
condition has not held for a while (`calm_ms`), so that what comes and goes is one episode. Its epoch is counted
in Redis, so every pod gives it the same id, and JetStream drops the others' copies: no pod needs a lock. With Redis
away the epoch is the wall clock's 10 minutes, and copies are possible. Messages are sent one after the other and kept,
in order, while NATS is away.

While a pod holds an episode open it joins it again every minute. One that nobody has joined for five is ended by
whoever notices: its pods were replaced. One that another pod has ended although the condition holds here begins again.

What turns in the store (a breaker) is seen to begin by one pod and to end by any: of that a pod remembers nothing, and
the episode that ends is the one that Redis has open.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from router.domain.alert import ALERTS, Alert, Condition, Severity
from router.domain.json import JsonObject
from router.errors import StoreError
from router.ports.alerts import Encode, Epochs
from router.ports.bus import Publication, Published, Publisher
from router.telemetry import Event, Telemetry
from router.usecases.alerts.episodes import Begun, Held, Step
from router.wire.alerts import alert_subject

QUIET_MS = 600_000
TEND_S = 60.0
LEFT_MS = 300_000
_WALL_EPOCH_MS = 600_000
_MAX_WAITING = 1_000

log = logging.getLogger("router.alerts")


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
        self._open: dict[tuple[Condition, str], Held] = {}
        self._begun: dict[tuple[Condition, str], Begun] = {}
        # Over, but the store could not be told: until it is, the next episode would get an id that is used up.
        self._left_open: dict[tuple[Condition, str], int] = {}
        self._waiting: deque[Step] = deque()
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
            self._open[key] = Held(metadata or {})
        step = Step(condition, scope, message, metadata or {}, self._wall_ms(), resolved=False)
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
        self._put(Step(condition, scope, message, metadata, at_ms, resolved=True))

    def happened(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """For what has no end of its own: the episode is over when it did not happen for 10 minutes."""
        self.raise_(condition, scope, message, metadata)
        if (held := self._open.get((condition, scope))) is not None:
            held.ends_ms = self._wall_ms() + QUIET_MS
            self._come.set()

    async def tend(self) -> None:
        """Every minute: join what is held here again, end what nobody holds. Cancel to stop."""
        joined = False
        while True:
            await asyncio.sleep(TEND_S)
            try:
                await self.join()
                # After an outage of the store the others have their turn first: what they hold was not joined either.
                if joined:
                    await self.end_left()
                joined = True
            except StoreError as fault:
                joined = False
                log.debug("episodes are tended later: %s", fault)

    async def join(self) -> None:
        """Say that the episodes which this pod holds are held; those that another pod has ended begin again.

        :raises StoreError: Redis did not answer.
        """
        for key, held in list(self._open.items()):
            begun = self._begun.get(key)
            if begun is None or begun.epoch is None:
                continue
            if await self._epochs.current(*key) == begun.epoch:
                await self._epochs.begin(*key)
            elif self._open.get(key) is held and self._begun.get(key) is begun:
                del self._open[key], self._begun[key]
                if held.ends_ms is None:
                    self.raise_(*key, metadata=held.metadata)

    async def end_left(self) -> None:
        """End the episodes that nobody holds any more. What turns in the store is looked at there.

        :raises StoreError: Redis did not answer.
        """
        for name, scope in await self._epochs.left(LEFT_MS):
            if name not in ALERTS:
                continue
            key = Condition(name), scope
            if not ALERTS[key[0]].turns and key not in self._open and key not in self._begun:
                self._end(key, "no pod sees it any more", {}, self._wall_ms())

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

    def _put(self, step: Step) -> None:
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

    async def _send(self, step: Step) -> bool:
        """Whether this step needs no further try."""
        key = step.condition, step.scope
        turns = ALERTS[step.condition].turns
        begun = self._begun.get(key)
        if begun is None:
            try:
                begun = await (self._ending(step) if step.resolved else self._begin(step))
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

    async def _begin(self, step: Step) -> Begun:
        await self._close_left_open()
        try:
            epoch = await self._epochs.begin(step.condition, step.scope)
        except StoreError:
            # Decided for this case: copies are better than silence.
            return Begun(f"{step.condition}:{step.scope}:w{step.at_ms // _WALL_EPOCH_MS}", None)
        return Begun(f"{step.condition}:{step.scope}:{epoch}", epoch)

    async def _ending(self, step: Step) -> Begun | None:
        """The fleet's open episode, whoever saw it begin; None: there is none, or its end was told."""
        await self._close_left_open()
        epoch = await self._epochs.current(step.condition, step.scope)
        return None if epoch is None else Begun(f"{step.condition}:{step.scope}:{epoch}", epoch)

    async def _close_left_open(self) -> None:
        for (condition, scope), epoch in list(self._left_open.items()):
            try:
                await self._epochs.end(condition, scope, epoch)
            except StoreError as e:
                log.debug("%s stays open in the store: %s", condition, e, extra={"event": Event.LOG, "scope": scope})
                return
            del self._left_open[condition, scope]

    async def _publish(self, step: Step, alert_id: str) -> bool:
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
