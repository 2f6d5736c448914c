"""The general client's calls, when their callers go."""

import asyncio
import gc
from contextlib import suppress
from typing import Any
from uuid import uuid4

from router.store.nodes import SingleNode


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
