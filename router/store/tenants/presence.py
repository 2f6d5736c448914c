"""Checks whether keys exist, with one round trip for all callers that ask at the same time."""

import asyncio

from router.errors import StoreError
from router.store.servers.nodes import Nodes


class Presence:
    """Checks keys. One pipeline is in flight; callers that ask meanwhile share the next one."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._waiting: dict[bytes, asyncio.Future[bool]] = {}
        self._task: asyncio.Task[None] | None = None

    async def has(self, key: bytes) -> bool:
        """Whether the key exists.

        :raises StoreError: Redis did not answer.
        """
        asked = self._waiting.get(key)
        if asked is None:
            asked = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._ask(), name="presence")
        return await asyncio.shield(asked)

    async def _ask(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                try:
                    found = await self._nodes.gather([("EXISTS", key) for key in waiting])
                except StoreError as fault:
                    for asked in waiting.values():
                        asked.set_exception(fault)
                        asked.exception()  # its caller may have been cancelled
                else:
                    for asked, count in zip(waiting.values(), found, strict=True):
                        asked.set_result(bool(count))
        finally:
            self._task = None
