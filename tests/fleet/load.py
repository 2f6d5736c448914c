"""A steady load, of pushed tasks as a rule, with a record of who was answered."""

import asyncio
from types import TracebackType
from typing import Self

import orjson

from tests.fleet.foreign import Foreign, Reply, task


class Load:
    """`async with Load(caller, tenant) as load`: many requests at once; on exit the last ones are waited for."""

    def __init__(
        self, caller: Foreign, tenant: str, *, open_requests: int = 32, patience_s: float = 2.0, push: bool = True
    ) -> None:
        self._more = {"push_assignment": True} if push else {}
        self._caller = caller
        self._tenant = tenant
        self._open = open_requests
        self._patience_s = patience_s
        self._stop = False
        self._progress = asyncio.Condition()
        self.sent = 0
        self.answered: dict[str, Reply] = {}
        self.unanswered: list[str] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._one_after_the_other()) for _ in range(self._open)]
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _one_after_the_other(self) -> None:
        while not self._stop:
            self.sent += 1
            name = f"load-{self.sent}"
            future = await self._caller.send(orjson.dumps(task(self._tenant, name, **self._more)))
            try:
                self.answered[name] = await asyncio.wait_for(future, self._patience_s)
            except TimeoutError:
                self.unanswered.append(name)
            async with self._progress:
                self._progress.notify_all()

    async def more(self, answers: int) -> None:
        """Returns when so many more are answered."""
        goal = len(self.answered) + answers
        async with asyncio.timeout(20 + answers / 100), self._progress:
            await self._progress.wait_for(lambda: len(self.answered) >= goal)
