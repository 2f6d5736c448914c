"""Replacing a NATS connection by another: one attempt to connect, and the end of the old client."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import nats.errors

from router.bus.client.fast import FastClient
from router.errors import BusError

_CONNECT_S = 6.0
_CANCEL_EVERY_S = 0.2
_ANSWERS_S = 10.0

Failed = Callable[[Exception], Awaitable[None]]


async def connect_once(
    connect: Callable[[Failed], Coroutine[Any, Any, None]], client: FastClient, failed: Failed
) -> None:
    """Connect a client, within a few seconds; its errors go to `failed` once it is connected.

    :raises BusError: it is not connected; the message has the last error.
    """
    connected, last = False, ""

    async def report(error: Exception) -> None:
        nonlocal last
        if connected:
            await failed(error)
        else:
            last = str(error) or repr(error)

    connecting = asyncio.ensure_future(connect(report))
    try:
        await asyncio.wait([connecting], timeout=_CONNECT_S)
    finally:
        # Cancel until it ends: nats-py loses a cancellation that comes with a refused connection.
        while not connecting.done():
            connecting.cancel()
            await asyncio.wait([connecting], timeout=_CANCEL_EVERY_S)
    fault = None if connecting.cancelled() else connecting.exception()
    if connecting.cancelled() or fault is not None:
        await dismiss(client)
        raise BusError(last or str(fault or "") or "no answer in time") from fault
    connected = True


async def retire(client: FastClient, sids: Sequence[int]) -> None:
    """Drain a client whose subscriptions another client has taken over: handle the messages that were sent to it, wait
    for its answers, then close it.
    """
    client.mute()
    for sid in sids:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):  # the server may have closed it already
            await client.unsubscribe_direct(sid)
    if client.is_connected and (awaited := client.awaited_replies):
        await asyncio.wait(awaited, timeout=_ANSWERS_S)
    if client.is_connected:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await client.flush()
    await dismiss(client)


async def dismiss(client: FastClient) -> None:
    """Close a client without reporting it."""
    client.mute()
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
        await client.close()
