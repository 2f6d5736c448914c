"""Replies, and how they survive a NATS server that shuts down (lame duck).

A server in lame duck mode closes its connections one after the other, then exits. A reply is lost without an error if
the caller's connection was closed just before, or if the server does not read this pod's last writes. So after the
server's notice, a pod keeps each reply until it is known to be delivered:

    send ─▶ published, with a reply subject of this pod ─▶ PONG, and no "no responders" before it ─▶ delivered: dropped
                 ▲                                          │ "no responders", or the connection is lost
                 └───────── retry, on the next connection ──┘ for at most `KEEP_S`: its caller has given up

After the next connect, and when no reply is kept, replies are sent without confirmation again. A caller may receive a
reply twice, if the server delivered it and exited before its PONG. Before the notice, all this costs each reply one
comparison.
"""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from msgspec import Struct

from router.bus.client import headers as wire
from router.errors import BusError, PermissionRefused
from router.telemetry.events import Event

if TYPE_CHECKING:
    from router.bus.client.connection import Bus

log = logging.getLogger(__name__)

KEEP_S = 30.0
RETRY_S = 0.05
MAX_KEPT_BYTES = 64 << 20
_CONFIRM_S = 0.5
"""A connection that is lost sends no PONG, and its replies go out again only after this wait."""
_NO_RESPONDERS = b"NATS/1.0 503"


class _Kept(Struct):
    to: bytes
    block: bytes
    body: bytes
    until: float
    published: bool = False
    refused: bool = False


class Replies:
    """Sends replies. `keeping`: the server has announced its shutdown, and replies are kept."""

    def __init__(self, bus: "Bus") -> None:
        self._bus = bus
        self.keeping = False
        self._hears = False
        self._kept: dict[int, _Kept] = {}
        self._bytes = 0
        self._number = 0
        self._inbox = b""
        self._task: asyncio.Task[None] | None = None

    def send(self, to: bytes, block: bytes, body: bytes) -> None:
        """Send a reply; `block` is its encoded headers.

        :raises BusError: it can be neither sent nor kept.
        """
        if not self.keeping or self._bytes > MAX_KEPT_BYTES:
            self._bus.send(wire.publish(to, reply=b"", block=block, payload=body))
            return
        self._number += 1
        until = asyncio.get_running_loop().time() + KEEP_S
        kept = self._kept[self._number] = _Kept(to, block, body, until)
        self._bytes += len(body)
        if self._hears:
            self._publish(self._number, kept)

    def server_leaves(self) -> None:
        """Start to keep replies: the server has announced that it closes its connections."""
        if self._task is None:
            self.keeping = True  # at once: the caller of a reply may be closed before the subscription stands
            self._inbox = f"{self._bus.new_inbox()}.".encode()
            self._task = asyncio.create_task(self._keep(self._bus.connection), name="lame duck")

    async def close(self) -> None:
        """Stop; replies that are still kept are lost, but those that were never sent go out unconfirmed."""
        if self._task is not None:
            self._send_unconfirmed()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self, connection: int) -> None:
        """Keep replies until this pod has a newer connection than the numbered one, and they are delivered."""
        try:
            try:
                heard = await self._bus.subscribe(f"{self._inbox.decode()}*", self._refused)
            except PermissionRefused as refused:
                log.warning(
                    "replies to a leaving NATS server may be lost: %s", refused, extra={"event": Event.BUS_ERROR}
                )
                self._send_unconfirmed()
                return
            self._hears = True
            try:
                await self._deliver(connection)
            finally:
                await heard.close()
        finally:
            self.keeping, self._hears, self._kept, self._bytes, self._task = False, False, {}, 0, None

    def _send_unconfirmed(self) -> None:
        for kept in self._kept.values():
            if kept.published:
                continue
            with contextlib.suppress(BusError):
                self._bus.send(wire.publish(kept.to, reply=b"", block=kept.block, payload=kept.body))

    async def _deliver(self, connection: int) -> None:
        now = asyncio.get_running_loop().time
        current = connection
        while self._kept or self._bus.connection == connection or not self._bus.connected:
            if self._bus.connection != current:
                current = self._bus.connection
                for kept in self._kept.values():
                    kept.published = False
            for number, kept in list(self._kept.items()):
                if kept.until < now():
                    self._drop(number)
                elif not kept.published or kept.refused:
                    self._publish(number, kept)
            await self._confirm()
            await asyncio.sleep(RETRY_S)

    async def _confirm(self) -> None:
        """Drop the replies that the server has delivered: "no responders" would have come before the PONG."""
        sent = [number for number, kept in self._kept.items() if kept.published]
        if sent:
            with contextlib.suppress(BusError):
                await self._bus.flush(_CONFIRM_S)
                for number in sent:
                    if (kept := self._kept.get(number)) is not None and not kept.refused:
                        self._drop(number)

    def _publish(self, number: int, kept: _Kept) -> None:
        kept.published = kept.refused = False
        if self._bus.connected:  # else nats-py would send it after the reconnect, and `_deliver` again
            with contextlib.suppress(BusError):
                self._bus.send(
                    wire.publish(kept.to, reply=b"%b%d" % (self._inbox, number), block=kept.block, payload=kept.body)
                )
                kept.published = True

    def _refused(self, subject: bytes, _reply: bytes, _data: bytes, raw: bytes | None) -> None:
        if raw is not None and raw.startswith(_NO_RESPONDERS):
            kept = self._kept.get(int(subject[len(self._inbox) :]))
            if kept is not None:
                kept.refused = True

    def _drop(self, number: int) -> None:
        self._bytes -= len(self._kept.pop(number).body)
