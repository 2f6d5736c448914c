"""An extension of a fleet: a responder in a queue group."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Self

import orjson
from nats.aio.msg import Msg

from tests.fleet.foreign import Body, Foreign

_ids = itertools.count()
OK: Body = {}
Answer = Callable[[Body], bytes | Body | None]


class Extension:
    """A responder in a queue group; `answer` makes the reply of a call, None: no reply. `calls` has what came."""

    def __init__(self, caller: Foreign, stage: str, answer: Answer | Body = OK, *, name: str | None = None) -> None:
        self.id = name or f"e{next(_ids)}"
        self.stage = stage
        self.answer: Answer = answer if callable(answer) else lambda _: answer
        self.calls: list[Body] = []
        self.called = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._caller = caller

    async def start(self) -> Self:
        """Listen."""
        subject = f"beamline.ext.{self.stage}.{self.id}.v1"
        await self._caller.client.subscribe(subject, queue="extension", cb=self._call)
        await self._caller.client.flush()
        return self

    async def _call(self, message: Msg) -> None:
        self.calls.append(orjson.loads(message.data))
        self.called.set()
        await self.may_answer.wait()
        answer = self.answer(self.calls[-1])
        if answer is not None:
            await message.respond(answer if isinstance(answer, bytes) else orjson.dumps(answer))
