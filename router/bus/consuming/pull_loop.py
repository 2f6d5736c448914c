"""A pull loop on a durable consumer. It survives reconnects, restarts of the server and a deleted consumer.

Pulling: one task keeps a pull request open, with a batch size, an expiry and idle heartbeats. It gives the messages
that have arrived to the handler as one batch and waits for the handler before the next. It holds at most two batches.
A pull request ends when its batch is full, at a status message of the server, after three heartbeats of silence, or at
a reconnect. Then the loop sends the next one.

Checking: every `check_s` a second task checks the consumer, also while pulling is paused; see `consumer_check`.

Holding: while a handler runs, the loop extends the ack wait of all messages that it holds, at most 30 times. So another
pod gets the messages of a stuck handler.

Delivery is at least once: an ack may be lost, so the handler must accept a message again. A message with its ack costs
3.8 µs CPU, in batches of 256, on Python 3.11.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.bus.client.subscriptions import Subscription
from router.bus.consuming.ack_wait import AckWait
from router.bus.consuming.consumer_check import ConsumerCheck
from router.bus.consuming.delivery import Delivery
from router.bus.consuming.pull_trouble import PullTrouble
from router.bus.streams.registry import Streams
from router.bus.streams.specs import ConsumerSpec
from router.errors import BusError, PermissionRefused
from router.telemetry.events import Event

log = logging.getLogger(__name__)

Handle = Callable[[list[Delivery]], Awaitable[None]]

_NAK_DELAY_S = 1.0


class PullLoop:
    """The pull loop; see the module. The counters but `lag` are totals.

    `lag`: messages of the stream that were not delivered; while the loop is paused, also those without an ack.
    """

    def __init__(
        self,
        bus: Bus,
        streams: Streams,
        spec: ConsumerSpec,
        handle: Handle,
        *,
        batch: int = 256,
        expires_s: float = 10.0,
        heartbeat_s: float = 1.0,
        check_s: float = 5.0,
        on_stall: Callable[[str], None] | None = None,
    ) -> None:
        self._bus = bus
        self.spec = spec
        self._handle = handle
        self._batch = batch
        self._heartbeat_s = heartbeat_s
        self._request = msgspec.json.encode(
            {"batch": batch, "expires": int(expires_s * 1e9), "idle_heartbeat": int(heartbeat_s * 1e9)}
        )
        self._next_subject = wire.subject(f"{bus.options.js_prefix}.CONSUMER.MSG.NEXT.{spec.stream}.{spec.name}")
        self.trouble = PullTrouble(bus, spec, self._next_subject.decode())
        self._check = ConsumerCheck(bus, streams, spec, self, every_s=check_s, on_stall=on_stall)
        self._subscription: Subscription | None = None
        self._inbox = b""
        self._request_number = 0
        self._remaining = 0  # messages left in the open pull request; 0: no request is open
        self._last_received_at = 0.0
        self._pulled_at = 0.0
        self._arrived: list[Delivery] = []
        self._ack_wait = AckWait(spec.ack_wait_s, lambda: self._arrived)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._checker: asyncio.Task[None] | None = None
        self._paused = False
        self._stopping = False
        self._restart = False
        self._busy = False
        self._requested = asyncio.Event()
        self.lag = 0
        self.received = 0
        self.answer = ""
        self.redelivered = 0

    @property
    def stalls(self) -> int:
        """How often the pull stalled."""
        return self._check.stalls

    @property
    def paused(self) -> bool:
        """Whether the loop is paused."""
        return self._paused

    @property
    def holds_messages(self) -> bool:
        """Whether messages are with the handler, or wait for it."""
        return self._busy or bool(self._arrived)

    async def start(self) -> None:
        """Start to pull as soon as there is a connection."""
        if self._task is None:
            self._stopping = False
            self._bus.on_connect.append(self.pull_again)
            self.trouble.start()
            self._task = asyncio.create_task(self._run(), name=f"pull {self.spec.name}")
            self._checker = asyncio.create_task(self._check.run(), name=f"check {self.spec.name}")

    async def stop(self, timeout_s: float = 10.0) -> None:
        """Stop pulling, wait for the handler, and return unhandled messages to the server; safe to call twice."""
        if self._task is None:
            return
        self._stopping = True
        self._bus.on_connect.remove(self.pull_again)
        self.trouble.stop()
        if self._checker is not None:
            self._checker.cancel()
        self._wake.set()
        _, late = await asyncio.wait({self._task}, timeout=timeout_s)
        for task in late:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = self._checker = None

    async def check_permission(self, timeout_s: float = 5.0) -> None:
        """Return when a pull request was sent and not refused, or at once while the loop is paused.

        :raises PermissionRefused: the user may not pull.
        :raises BusError: no pull request was sent in time, or the server did not answer.
        """
        if self._paused:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._requested.wait()
        except TimeoutError as error:
            raise BusError(f"{self.spec.name} has not asked for messages yet") from error
        pulled_at = self._pulled_at
        await self._bus.flush()
        refused = self._bus.publish_refused(self._next_subject.decode(), pulled_at) or self._bus.inbox_refused
        if refused is not None:
            raise PermissionRefused(str(refused))

    def pause(self) -> None:
        """Stop pulling and return the messages that no handler has; used while results cannot be written."""
        self._paused = True
        self._wake.set()

    def resume(self) -> None:
        """Pull again after `pause`."""
        self._paused = False
        self._wake.set()

    async def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    await self._turn()
                except Exception:  # after a bug the consumer must still be served
                    log.exception("pull loop of %s failed; restarting it", self.spec.name, extra={"event": Event.BUG})
                    self._restart = True
                    await asyncio.sleep(self._heartbeat_s)
        finally:
            await self._release()

    async def _turn(self) -> None:
        self._wake.clear()
        if self._paused or self._restart:
            self._restart = False
            await self._release()
        if not self._paused:
            await self._pull()
            if self._arrived:
                self.trouble.heard()
                batch, self._arrived = self._arrived, []
                await self._hand_over(batch)
                return
        await self._sleep()

    async def _sleep(self) -> None:
        """Wait for an event, at most one heartbeat; three heartbeats of silence end the pull request."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await self._wake.wait()
        except TimeoutError:
            if asyncio.get_running_loop().time() - self._last_received_at > 3 * self._heartbeat_s:
                self._remaining = 0
                self.answer = ""

    async def _hand_over(self, batch: list[Delivery]) -> None:
        self._busy = True
        self._ack_wait.extend(batch)
        try:
            await self._handle(batch)
        except asyncio.CancelledError:
            _nak(batch, 0.0)
            raise
        except Exception:  # the server delivers the messages again, and the loop continues
            log.exception(
                "batch of %s failed; the server delivers it again", self.spec.name, extra={"event": Event.BUG}
            )
            _nak(batch, _NAK_DELAY_S)
        finally:
            self._busy = False
            self._ack_wait.end()

    async def _release(self) -> None:
        """Withdraw the pull request and return its messages; the server drops a request without a subscriber."""
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.close()
        self._remaining = 0
        arrived, self._arrived = self._arrived, []
        _nak(arrived, 0.0)

    async def _pull(self) -> None:
        """Open a pull request unless one is open."""
        if self._subscription is None:
            self._inbox = self._bus.new_inbox().encode() + b"."
            inbox = self._inbox.decode() + "*"
            self._subscription = await self._bus.subscribe(inbox, self._on_message, optional=True)
        if self._remaining > 0 or not self._bus.connected:
            return
        self._request_number += 1
        self._pulled_at = time.monotonic()
        try:
            self._bus.send(
                wire.publish(
                    self._next_subject,
                    reply=self._inbox + b"%x" % self._request_number,
                    block=b"",
                    payload=self._request,
                )
            )
        except BusError as error:
            log.warning("cannot pull from %s: %s", self.spec.name, error, extra={"event": Event.BUS_ERROR})
            return
        self._requested.set()
        self._remaining = self._batch
        self._last_received_at = asyncio.get_running_loop().time()

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        """Handle a message (under its own subject) or a status message (under the subject of the pull request)."""
        if subject.startswith(self._inbox):
            if raw is not None and subject[len(self._inbox) :] == b"%x" % self._request_number:
                self._on_status(*wire.status(raw))
            return
        delivery = Delivery(bus=self._bus, subject=subject, reply=reply, data=data, raw=raw)
        self._last_received_at = asyncio.get_running_loop().time()
        self._remaining -= 1
        self.received += 1
        self.redelivered += delivery.delivered > 1
        self.lag = delivery.pending
        self._arrived.append(delivery)
        self._wake.set()

    def _on_status(self, code: int, text: str) -> None:
        self.trouble.heard()
        self._last_received_at = asyncio.get_running_loop().time()
        if code == 100:
            self.answer = "heartbeats only"
            return
        self.answer = f"{code} {text}"
        self._remaining = 0
        if code in (404, 408):
            self._wake.set()  # the request expired; after any other status the next one waits for a heartbeat
        elif code == 503 or "deleted" in text.lower():
            self._check.check_soon()

    def restart(self) -> None:
        """Withdraw the pull request, and pull with a new inbox."""
        self._restart = True
        self._wake.set()

    def pull_again(self) -> None:
        """Send a new pull request: the server forgot the old one. Messages that arrived stay valid."""
        self._remaining = 0
        self._wake.set()


def _nak(batch: list[Delivery], delay_s: float) -> None:
    for delivery in batch:
        delivery.nak(delay_s)
