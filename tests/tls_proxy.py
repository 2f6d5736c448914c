"""TLS in front of a server that has none, such as the Valkey of the wheel: `async with tls_in_front(port, context)`."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def tls_in_front(
    port: int, context: ssl.SSLContext, said: Callable[[bytes], bytes] = bytes
) -> AsyncIterator[int]:
    """A port of 127.0.0.1 that speaks TLS and passes everything to the server at `port`; `said` changes its replies."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(_pass_on(reader, inner_writer, bytes), _pass_on(inner_reader, writer, said))
        for each in (writer, inner_writer):
            each.transport.abort()
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    asyncio.get_running_loop().set_exception_handler(_refused_handshakes_are_no_errors)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        asyncio.get_running_loop().set_exception_handler(None)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
) -> None:
    while data := await reader.read(65536):
        writer.write(change(data))
        await writer.drain()
    writer.close()


def _refused_handshakes_are_no_errors(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    if not isinstance(context.get("exception"), (ssl.SSLError, ConnectionError)):
        loop.default_exception_handler(context)
