"""A TCP proxy in front of one server that can do to its connections what networks do.

Cut: after so many more bytes, in the middle of whatever is on its way, both sides get a reset. Half: the one way ends
there (FIN), the other goes on for a while. Delay: every piece waits. Hole: nothing passes in one way.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

_PIECE = 65_536
UP, DOWN = 0, 1


class _Link:
    """One client's connection. `limits` per way: bytes until the end of it; `half`: what kind of end."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = (client, server)
        self.limits: list[int | None] = [None, None]
        self.half = False

    def abort(self) -> None:
        for end in self.ends:
            end.transport.abort()


class Proxy:
    """`await start()`, then `port` leads to 127.0.0.1:`target`. Faults pick a connection by number, oldest first."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._links: list[_Link] = []
        self._delay_s = 0.0
        self._open = [asyncio.Event(), asyncio.Event()]
        for way in self._open:
            way.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def lead_to(self, target: int) -> None:
        """Where the next connections go."""
        self._target = target

    async def close(self) -> None:
        """Cut everything and listen no more."""
        self._server.close()
        for link in self._links:
            link.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def end(self, pick: int | None, *, after_bytes: int, upstream: bool, hold_s: float, half: bool) -> None:
        """Cut one connection (None: each), or close one way of it; after `hold_s` it is cut whatever has passed."""
        links = self._links[:] if pick is None else [self._links[pick % len(self._links)]] if self._links else []
        for link in links:
            link.half = half
            link.limits[UP if upstream else DOWN] = after_bytes
        await asyncio.sleep(hold_s)
        for link in links:
            link.abort()

    async def delay(self, seconds: float, hold_s: float) -> None:
        """Every piece of every connection waits so long, in both ways."""
        self._delay_s = seconds
        await asyncio.sleep(hold_s)
        self._delay_s = 0.0

    async def hole(self, hold_s: float, *, upstream: bool) -> None:
        """Nothing passes in one way, on any connection; afterwards everything that waited does."""
        way = self._open[UP if upstream else DOWN]
        way.clear()
        await asyncio.sleep(hold_s)
        way.set()

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            to_client.transport.abort()
            return
        link = _Link(to_client, to_server)
        self._links.append(link)
        ways = [
            self._go(self._pump(link, UP, from_client, to_server)),
            self._go(self._pump(link, DOWN, from_server, to_client)),
        ]
        await asyncio.wait(ways)
        self._links.remove(link)
        link.abort()

    def _go(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _pump(self, link: _Link, way: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(_PIECE):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._open[way].wait()
                limit = link.limits[way]
                if limit is not None and len(data) >= limit:
                    sink.write(data[:limit])
                    self._finish(link, sink)
                    return
                if limit is not None:
                    link.limits[way] = limit - len(data)
                sink.write(data)
                await sink.drain()
            sink.write_eof()
        except OSError:
            link.abort()

    @staticmethod
    def _finish(link: _Link, sink: asyncio.StreamWriter) -> None:
        if not link.half:
            link.abort()
            return
        with suppress(OSError):
            sink.write_eof()
