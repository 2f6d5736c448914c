"""The general client's calls, when their callers go."""

import asyncio
import gc
from contextlib import suppress
from typing import Any
from uuid import uuid4

from router.store.servers.link import Link
from router.store.servers.nodes import SingleNode
from router.store.servers.options import connection_factory


async def test_a_call_that_fails_after_its_caller_went_is_no_error_of_anybody(redis_url: str) -> None:
    """The call stays on the wire until it ends; nobody waits for that any more, so nothing is logged."""
    nodes = SingleNode(redis_url, timeout_s=0.1)
    heard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(context))
    try:
        before = asyncio.all_tasks()
        caller = asyncio.create_task(nodes.call("BLPOP", uuid4().hex, 0))
        await asyncio.sleep(0)
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
        on_the_wire = asyncio.all_tasks() - before - {caller}
        assert len(on_the_wire) == 1
        await asyncio.wait(on_the_wire, timeout=5)
        del on_the_wire, caller
        gc.collect()
        assert heard == []
    finally:
        loop.set_exception_handler(None)
        await nodes.close()


async def test_a_cancelled_read_leaves_no_reply_behind(redis_url: str) -> None:
    """Whoever uses the link next reads their own reply, not that of a caller who went while it was on the wire."""
    link = Link(connection_factory(redis_url), reply_timeout_s=5)
    secret = uuid4().hex
    assert await link.ask([("ECHO", "warm")]) == [b"warm"]
    reading = asyncio.create_task(link.ask([("BLPOP", secret, 0.1), ("ECHO", secret)]))
    await asyncio.sleep(0)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    assert await link.ask([("ECHO", "mine")]) == [b"mine"]
    link.close()
