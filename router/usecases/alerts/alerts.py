"""Raise each alert once for the whole fleet, and publish its end.

An episode of (condition, scope) has two messages: its begin and its end. Further raises in between publish nothing.

    raise_ ─▶ open ─ resolve ─▶ calm ─ `calm_ms` passes ─▶ ended
                ▲                 │
                └──── raise_ ─────┘      a flapping condition is one episode

**One id, no lock.** Redis counts the episodes (the epoch), so all pods give an episode the same alert id, and JetStream
drops the duplicates. While Redis is unavailable the epoch is the current 10 minutes of the wall clock: duplicates are
possible. Messages are published one at a time, in order, and wait while NATS is unavailable.

**Pods that disappear.** A pod joins its open episodes again every minute. An episode that no pod has joined for five
minutes is abandoned (its pods were replaced): any pod ends it. If another pod ended an episode while the condition
still holds here, this pod raises it again.

**Conditions that change in the store** (`domain.alert.Kind.turns`, a breaker): one pod may see the begin and another
the end. A pod keeps no state of these; the end applies to the episode that is open in Redis.
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
from router.usecases.alerts.episodes import Identity, OpenEpisode, Transition
from router.wire.alerts import alert_subject

QUIET_MS = 600_000
MAINTAIN_S = 60.0
ABANDONED_MS = 300_000
_WALL_EPOCH_MS = 600_000
_MAX_WAITING = 1_000

log = logging.getLogger("router.alerts")


class Alerts:
    """Raises and resolves alerts. `raise_`, `resolve` and `occurred` are called on the loop and never raise an error.

    `run` publishes; until it runs, all messages wait. `wall_ms` is Unix time in ms. `calm_ms`: how long a condition
    must stay resolved before its episode ends.
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
        self._open: dict[tuple[Condition, str], OpenEpisode] = {}
        self._identities: dict[tuple[Condition, str], Identity] = {}
        # Ended, but still open in Redis: until Redis is updated, the next episode would reuse the ended one's id.
        self._to_close: dict[tuple[Condition, str], int] = {}
        self._waiting: deque[Transition] = deque()
        self._wake, self._retry, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle.set()

    def raise_(
        self, condition: Condition, scope: str, *, message: str = "", metadata: JsonObject | None = None
    ) -> None:
        """Report that the condition holds. Only the first call of an episode publishes an alert."""
        key = condition, scope
        if (episode := self._open.get(key)) is not None:
            episode.ends_ms = episode.resolution = None
            return
        kind = ALERTS[condition]
        if len(self._waiting) >= _MAX_WAITING:
            self._telemetry.alerts_lost.inc()
            log.error("alert lost: too many alerts wait to be sent: %s", condition, extra={"event": Event.ALERT_LOST})
            return
        if not kind.turns:
            self._open[key] = OpenEpisode(metadata or {})
        transition = Transition(
            condition=condition,
            scope=scope,
            message=message,
            metadata=metadata or {},
            at_ms=self._wall_ms(),
            resolved=False,
        )
        self._telemetry.alerts_raised.labels(condition.value, kind.severity.value).inc()
        fields = {"event": Event.ALERT_RAISED, "condition": condition.value, "scope": scope, **transition.metadata}
        log.warning(message or kind.message, extra=fields)
        self._put(transition)

    def resolve(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """End the episode if the condition does not return within `calm_ms`. No effect without an open episode."""
        key = condition, scope
        if ALERTS[condition].turns:
            self._put_end(key, message, metadata or {}, self._wall_ms())
        elif (episode := self._open.get(key)) is not None and episode.resolution is None:
            episode.resolution = message, self._wall_ms()
            episode.ends_ms = episode.resolution[1] + self._calm_ms
            self._end_quiet()
            self._wake.set()

    def _put_end(self, key: tuple[Condition, str], message: str, metadata: JsonObject, at_ms: int) -> None:
        condition, scope = key
        fields = {"event": Event.ALERT_RESOLVED, "condition": condition.value, "scope": scope}
        log.info(message or "over", extra=fields)
        self._put(
            Transition(condition=condition, scope=scope, message=message, metadata=metadata, at_ms=at_ms, resolved=True)
        )

    def occurred(
        self, condition: Condition, scope: str, *, message: str = "", metadata: JsonObject | None = None
    ) -> None:
        """Report an event that has no end of its own: its episode ends after 10 minutes without another one."""
        self.raise_(condition, scope, message=message, metadata=metadata)
        if (episode := self._open.get((condition, scope))) is not None:
            episode.ends_ms = self._wall_ms() + QUIET_MS
            self._wake.set()

    async def maintain(self) -> None:
        """Every minute, join this pod's open episodes again and end abandoned ones. Cancel to stop."""
        joined = False
        while True:
            await asyncio.sleep(MAINTAIN_S)
            try:
                await self.join()
                # After a store outage no pod has joined its episodes: give the others one round before ending any.
                if joined:
                    await self.end_abandoned()
                joined = True
            except StoreError as fault:
                joined = False
                log.debug("store unavailable; episodes are maintained later: %s", fault)

    async def join(self) -> None:
        """Join this pod's open episodes again, and raise those again that another pod has ended.

        :raises StoreError: Redis did not answer.
        """
        for key, episode in list(self._open.items()):
            identity = self._identities.get(key)
            if identity is None or identity.epoch is None:
                continue
            if await self._epochs.current(*key) == identity.epoch:
                await self._epochs.begin(*key)
            elif self._open.get(key) is episode and self._identities.get(key) is identity:
                del self._open[key], self._identities[key]
                if episode.ends_ms is None:
                    self.raise_(*key, metadata=episode.metadata)

    async def end_abandoned(self) -> None:
        """End the episodes that no pod has joined for `ABANDONED_MS`; `breaker_episodes` ends those of breakers.

        :raises StoreError: Redis did not answer.
        """
        for name, scope in await self._epochs.stale(ABANDONED_MS):
            if name not in ALERTS:
                continue
            key = Condition(name), scope
            if not ALERTS[key[0]].turns and key not in self._open and key not in self._identities:
                self._put_end(key, "no pod reports it any more", {}, self._wall_ms())

    def retry_now(self) -> None:
        """Retry now: NATS is available again."""
        self._retry.set()
        self._wake.set()

    async def sent(self) -> None:
        """Return when no message waits to be sent. Bound the wait with a timeout.

        Only tests call it: `run` sends in the background, and nothing else shows that no message is left.
        """
        await self._idle.wait()

    async def run(self) -> None:
        """Publish waiting messages in order, forever. Cancel to stop."""
        while True:
            self._wake.clear()
            self._retry.clear()
            self._end_quiet()
            if not self._waiting:
                self._idle.set()
                await self._close_ended()
                await _wait(self._wake, self._retry_s if self._to_close else self._until_quiet_s())
            elif await self._send(self._waiting[0]):
                self._waiting.popleft()
            else:
                await _wait(self._retry, self._retry_s)

    def _put(self, transition: Transition) -> None:
        self._waiting.append(transition)
        self._idle.clear()
        self._wake.set()

    def _end_quiet(self) -> None:
        now = self._wall_ms()
        for key, episode in [(k, h) for k, h in self._open.items() if h.ends_ms is not None and h.ends_ms <= now]:
            del self._open[key]
            message, at_ms = episode.resolution or ("did not happen again", now)
            self._put_end(key, message, episode.metadata, at_ms)

    def _until_quiet_s(self) -> float | None:
        moments = [h.ends_ms for h in self._open.values() if h.ends_ms is not None]
        return max(0.0, (min(moments) - self._wall_ms()) / 1000) if moments else None

    async def _send(self, transition: Transition) -> bool:
        """Publish one transition. False: it needs a retry."""
        key = transition.condition, transition.scope
        turns = ALERTS[transition.condition].turns
        identity = self._identities.get(key)
        if identity is None:
            try:
                identity = await (self._identity_to_end(transition) if transition.resolved else self._begin(transition))
            except StoreError as e:
                fields = {"event": Event.LOG, "scope": transition.scope}
                log.debug("store unavailable; the end of alert %s waits: %s", transition.condition, e, extra=fields)
                # Move it to the back: the others need not wait for the store.
                self._waiting.rotate(-1)
                return False
            if identity is None:
                return True
            # Kept across retries: a retry must not begin a second episode.
            self._identities[key] = identity
        if not await self._publish(transition, identity.alert_id):
            return False
        if transition.resolved or turns:
            del self._identities[key]
        if transition.resolved and identity.epoch is not None:
            self._to_close[key] = identity.epoch
            await self._close_ended()
        return True

    async def _begin(self, transition: Transition) -> Identity:
        await self._close_ended()
        try:
            epoch = await self._epochs.begin(transition.condition, scope=transition.scope)
        except StoreError:
            # On purpose: duplicates are better than a missing alert.
            return Identity(f"{transition.condition}:{transition.scope}:w{transition.at_ms // _WALL_EPOCH_MS}", None)
        return Identity(f"{transition.condition}:{transition.scope}:{epoch}", epoch)

    async def _identity_to_end(self, transition: Transition) -> Identity | None:
        """The fleet's open episode, whichever pod began it. None: it was already ended, or there is none."""
        await self._close_ended()
        epoch = await self._epochs.current(transition.condition, scope=transition.scope)
        return None if epoch is None else Identity(f"{transition.condition}:{transition.scope}:{epoch}", epoch)

    async def _close_ended(self) -> None:
        for (condition, scope), epoch in list(self._to_close.items()):
            try:
                await self._epochs.end(condition, scope=scope, epoch=epoch)
            except StoreError as e:
                fields = {"event": Event.LOG, "scope": scope}
                log.debug("store unavailable; alert %s stays open there: %s", condition, e, extra=fields)
                return
            del self._to_close[condition, scope]

    async def _publish(self, transition: Transition, alert_id: str) -> bool:
        kind = ALERTS[transition.condition]
        severity = Severity.INFO if transition.resolved else kind.severity
        metadata = {**transition.metadata, "condition": transition.condition.value, "scope": transition.scope}
        if transition.resolved:
            metadata["resolved"] = True
        message = transition.message or (f"over: {kind.message}" if transition.resolved else kind.message)
        alert = Alert(
            alert_id=alert_id,
            condition=transition.condition,
            severity=severity,
            component=kind.component,
            message=message,
            timestamp_ms=transition.at_ms,
            metadata=metadata,
        )
        payload, headers = self._encode(alert)
        message_id = f"{alert_id}:resolved" if transition.resolved else alert_id
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(outcome: Published) -> None:
            if not stored.done():
                stored.set_result(bool(outcome))

        self._publisher.publish(Publication(alert_subject(severity), payload, message_id, headers), done)
        return await stored


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    """Return when the event is set or the timeout has passed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
