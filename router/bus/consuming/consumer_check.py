"""The checks beside a pull loop: is the consumer there, and do its messages arrive?

A missing consumer is created again, at once when the server reports it as deleted. One that cannot be created is tried
every `every_s` only. If messages wait in the stream and none arrived since the last check, the pull has stalled.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Protocol

from router.bus.client.connection import Bus
from router.bus.consuming.pull_trouble import PullTrouble
from router.bus.streams.registry import Streams
from router.bus.streams.specs import ConsumerSpec
from router.errors import BusError
from router.log_throttle import LogThrottle
from router.telemetry.events import Event

log = logging.getLogger(__name__)


class Pull(Protocol):
    """What the checks need of a pull loop."""

    lag: int
    received: int
    answer: str
    """The last answer of the server to a pull request; empty: none since the last heartbeats were due."""
    trouble: PullTrouble

    @property
    def paused(self) -> bool:
        """Whether the loop is paused."""

    @property
    def holds_messages(self) -> bool:
        """Whether messages are with the handler, or wait for it."""

    def pull_again(self) -> None:
        """Send a new pull request: the server forgot the old one."""

    def restart(self) -> None:
        """Withdraw the pull request, and pull with a new inbox."""


class ConsumerCheck:
    """Checks a consumer every `every_s`, and soon after `check_soon`. `stalls` is a total."""

    def __init__(
        self,
        bus: Bus,
        streams: Streams,
        spec: ConsumerSpec,
        pull: Pull,
        *,
        every_s: float,
        on_stall: Callable[[str], None] | None,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._spec = spec
        self._pull = pull
        self._every_s = every_s
        self._on_stall = on_stall
        self._now = asyncio.Event()
        self._absent = False  # the consumer could not be created
        self._throttle = LogThrottle(time.monotonic)
        self.stalls = 0

    def check_soon(self) -> None:
        """Check at once, unless the consumer is known to be missing."""
        self._now.set()

    async def run(self) -> None:
        """Check until cancelled; never raises."""
        received = -1
        while True:
            if self._absent:
                await asyncio.sleep(self._every_s)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._every_s):
                        await self._now.wait()
            self._now.clear()
            if not self._bus.connected:
                received = -1
                continue
            try:
                await self._pull.trouble.try_ack()
                received = await self._check(received)
            except BusError as error:
                if (suppressed := self._throttle.due(str(error))) is not None:
                    fields = {"event": Event.BUS_ERROR, "unsaid": suppressed}
                    log.warning("cannot check %s: %s", self._spec.name, error, extra=fields)
                received = -1
            except Exception:  # after a bug, also in a callback, the checks must continue
                log.exception("check of %s failed", self._spec.name, extra={"event": Event.BUG})
                received = -1

    async def _check(self, received: int) -> int:
        """Compare with the last check's `received`; the result is for the next check, and -1 means no comparison."""
        spec, pull = self._spec, self._pull
        info = await self._streams.consumer(spec.stream, name=spec.name)
        if info is None:
            await self._create()
            return -1
        self._absent = False
        pull.lag = info.num_pending
        if pull.paused:
            pull.lag += info.num_ack_pending  # given back, or held by other pods that may be paused too
            return -1
        idle = pull.received == received and not pull.holds_messages
        if idle and info.num_pending > 0 and info.num_ack_pending < spec.max_ack_pending:
            self.stalls += 1
            answer = pull.trouble.deaf or pull.answer or "nothing"
            why = (
                f"{info.num_pending:,} messages wait for {spec.name} and none arrives; NATS answers its pull: {answer}"
            )
            log.warning("%s; restarting the pull", why, extra={"event": Event.CONSUMER_STALLED})
            pull.restart()
            if self._on_stall is not None:
                self._on_stall(why)
        return pull.received

    async def _create(self) -> None:
        ensured = await self._streams.ensure_consumer(self._spec)
        self._absent = bool(ensured.missing)
        if ensured.missing:
            reason = ensured.missing[0].reason
            if (suppressed := self._throttle.due(reason)) is not None:
                fields = {"event": Event.BUS_ERROR, "unsaid": suppressed}
                log.warning("%s is missing: %s", self._spec.name, reason, extra=fields)
            return
        if ensured.created:
            created = ", ".join(ensured.created)
            log.warning(
                "%s was missing; created: %s", self._spec.name, created, extra={"event": Event.CONSUMER_CREATED}
            )
        else:
            log.info("%s was missing; another pod has created it", self._spec.name)
        self._pull.pull_again()
