"""The client of a bus: connected in the background, watched, and replaced when it is stuck or its login is renewed.

nats-py reconnects without limit. If its client still gives up or gets stuck, a watchdog replaces it, and restores all
subscriptions on the new one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import nats.errors

from router.bus.client.connecting import cancel, connect, connect_once, dismiss, retire
from router.bus.client.fast import FastClient
from router.bus.client.options import BusOptions, connect_arguments
from router.bus.client.permissions import Permissions
from router.bus.client.reporter import Reporter
from router.bus.client.subscriptions import Subscriptions
from router.errors import BusError
from router.telemetry.events import Event

log = logging.getLogger(__name__)
_WATCH_S = 1.0
_RENEW_S = 5


class Upkeep:
    """Keeps `client` connected; None: there was no connection yet, or the bus is closed.

    `on_connected` gets the client after each connect, before other listeners.
    """

    def __init__(
        self,
        options: BusOptions,
        *,
        reporter: Reporter,
        permissions: Permissions,
        subscriptions: Subscriptions,
        on_connected: Callable[[FastClient], None],
    ) -> None:
        self.client: FastClient | None = None
        self._options = options
        self._arguments = connect_arguments(options)
        self._reporter = reporter
        self._permissions = permissions
        self._subscriptions = subscriptions
        self._on_connected = on_connected
        self._task: asyncio.Task[None] | None = None
        self._ever_connected = asyncio.Event()

    @property
    def is_started(self) -> bool:
        """Whether it connects, or is connected."""
        return self._task is not None

    def start(self) -> None:
        """Start to connect."""
        self._task = asyncio.create_task(self._run(), name="bus")

    async def wait_connected(self, timeout_s: float) -> bool:
        """See `Bus.wait_connected`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ever_connected.wait()
        return self._ever_connected.is_set()

    async def close(self) -> None:
        """Close the client, and connect no more."""
        if self._task is not None:
            await cancel(self._task)
            if not self._task.cancelled():
                self._task.exception()  # the reporter has reported it
            self._task = None
        if self.client is not None:
            await self.client.close()
            self.client = None

    async def renew(self, options: BusOptions) -> None:
        """See `Bus.renew`."""
        arguments = connect_arguments(options)
        old = self.client
        if old is None:
            await self._start_again(arguments)
            return
        fresh = FastClient()
        try:
            await connect_once(partial(self._open, fresh, arguments), fresh, self._reporter.failed)
            sids = await self._subscriptions.subscribe_all(fresh)
            await fresh.flush(_RENEW_S)
        except (nats.errors.Error, OSError, TimeoutError) as fault:
            await dismiss(fresh)
            raise BusError(f"the new connection was lost: {fault}") from fault
        except BaseException:
            await dismiss(fresh)
            raise
        if self.client is not old or self._task is None or self._reporter.closing:
            await dismiss(fresh)
            raise BusError("the old connection was replaced meanwhile")
        old_sids = self._subscriptions.take_over(sids)
        self._arguments, self.client = arguments, fresh
        self._connected()
        await retire(old, old_sids)

    async def _start_again(self, arguments: dict[str, Any]) -> None:
        """Make the first connection with other options than those that are being tried."""
        self._arguments = arguments
        task, self._task = self._task, None
        if task is not None:
            await cancel(task)
            self.start()

    async def _run(self) -> None:
        """Connect, watch the client and replace it when it is stuck."""
        while True:
            client = await self._connect()
            try:
                await self._adopt(client)
                while not client.stuck:
                    await asyncio.sleep(_WATCH_S)
                    client = self.client or client  # `renew` replaces it
                    await self._permissions.regain(client)
                log.error("NATS client gave up; replacing it: %r", client.last_error, extra={"event": Event.BUS_ERROR})
            except Exception:  # a lost connection or a bug in a callback: without this loop the pod never reconnects
                log.exception("NATS client failed; replacing it", extra={"event": Event.BUG})
                await asyncio.sleep(_WATCH_S)
            await client.close()

    async def _adopt(self, client: FastClient) -> None:
        """Set up all subscriptions on the client, then use it."""
        await self._subscriptions.adopt(client)
        self.client = client  # `adopt` awaits nothing after its last check: every later subscription uses this client
        self._connected()

    async def _connect(self) -> FastClient:
        """Return a connected client. nats-py retries known errors without limit; this loop retries all others."""
        return await connect(
            lambda client: self._open(client, self._arguments, self._reporter.failed), self._reporter.failed
        )

    async def _open(
        self, client: FastClient, arguments: dict[str, Any], failed: Callable[[Exception], Awaitable[None]]
    ) -> None:
        await client.connect(
            servers=list(self._options.urls),
            error_cb=failed,
            disconnected_cb=self._reporter.disconnected,
            reconnected_cb=self._reconnected,
            lame_duck_mode_cb=self._reporter.lame_duck,
            **arguments,
        )

    async def _reconnected(self) -> None:
        self._connected()

    def _connected(self) -> None:
        if self.client is not None:
            self._on_connected(self.client)
        self._ever_connected.set()
        self._reporter.connected()
