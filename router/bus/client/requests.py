"""Requests over the bus: one message, and the first reply to it."""

import asyncio
import time
from collections.abc import Mapping

from msgspec import Struct

from router.bus.client.fast import FastClient
from router.bus.client.faults import BusTimeoutError, translated
from router.bus.client.permissions import Permissions, Refusal
from router.errors import PermissionRefused


class Answer(Struct, frozen=True):
    """The reply to a request."""

    data: bytes
    headers: Mapping[str, str]


class Requests:
    """The requests that wait for their replies. A refusal of the server ends them at once: no reply will come."""

    def __init__(self, permissions: Permissions) -> None:
        self._permissions = permissions
        self._waiting: dict[str, list[asyncio.Timeout]] = {}
        permissions.on_refused.append(self._end_refused)

    async def request(
        self, client: FastClient, subject: str, payload: bytes, headers: dict[str, str] | None, *, timeout_s: float
    ) -> Answer:
        """See `Bus.request`; the client is connected."""
        if (inbox_refused := self._permissions.inbox_refused()) is not None:
            raise PermissionRefused(str(inbox_refused))
        began = time.monotonic()
        waiting = self._waiting.setdefault(subject, [])
        until_refused = asyncio.timeout(None)
        waiting.append(until_refused)
        try:
            with translated(subject):
                async with until_refused:
                    message = await client.request(subject, payload, timeout=timeout_s, headers=headers)
        except BusTimeoutError as error:
            refused = self._permissions.publish_refused(subject, began) or self._permissions.inbox_refused()
            if refused is not None:
                raise PermissionRefused(str(refused)) from error
            raise
        finally:
            waiting.remove(until_refused)
            if not waiting:
                self._waiting.pop(subject, None)
        return Answer(message.data, message.headers or {})

    def _end_refused(self, refusal: Refusal) -> None:
        now = asyncio.get_running_loop().time()
        if refusal.verb == "publish":
            ended = self._waiting.get(refusal.subject, [])
        elif self._permissions.inbox_refused() is not None:
            ended = [scope for scopes in self._waiting.values() for scope in scopes]
        else:
            return
        for scope in ended:
            scope.reschedule(now)
