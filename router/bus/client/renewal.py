"""Replacing a NATS connection by another: one attempt to connect, and the end of the old client."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import nats.errors

from router.bus.client.fast import FastClient
from router.errors import BusError

_CONNECT_S = 6.0
_ANSWERS_S = 10.0

Failed = Callable[[Exception], Awaitable[None]]


async def connect_once(connect: Callable[[Failed], Awaitable[None]], client: FastClient, failed: Failed) -> None:
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

    try:
        async with asyncio.timeout(_CONNECT_S):
            await connect(report)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        await dismiss(client)
        raise BusError(last or str(error) or "no answer in time") from error
    connected = True


async def retire(client: FastClient, sids: Sequence[int]) -> None:
    """Drain a client whose subscriptions another has: handle what was sent to it, wait for its answers, close it."""
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
    """Close a client, and report nothing about it."""
    client.mute()
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
        await client.close()
