"""Connecting a client to NATS, until it succeeds or once; and the end of a client that another replaces."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import nats.errors
from tenacity import AsyncRetrying, retry_if_not_exception_type, wait_random_exponential

from router.bus.client.fast import FastClient
from router.errors import BusError, InvalidInput

_CONNECT_S = 6.0
_CANCEL_EVERY_S = 0.2
_ANSWERS_S = 10.0

Failed = Callable[[Exception], Awaitable[None]]


async def cancel(task: "asyncio.Future[None]") -> None:
    """Cancel until the task ends: nats-py loses a cancellation that comes with a refused connection."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_EVERY_S)


async def connect(open_: Callable[[FastClient], Coroutine[Any, Any, None]], failed: Failed) -> FastClient:
    """Return a connected client. nats-py retries known errors without limit; this loop retries all others."""
    retrying = AsyncRetrying(
        wait=wait_random_exponential(multiplier=0.2, max=5),
        retry=retry_if_not_exception_type((asyncio.CancelledError, InvalidInput)),
    )
    async for attempt in retrying:
        with attempt:
            client = FastClient()
            try:
                await open_(client)
            except asyncio.CancelledError:
                await client.close()
                raise
            except Exception as error:  # retried by the loop, so it must be reported here
                await failed(error)
                raise
            return client
    raise AssertionError("tenacity ended without a result")


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
        await cancel(connecting)
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
