"""The scenario's contenders that are libraries: two processes that use one each, asked over a socket."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Self

from bench.peers.install import Peers
from bench.peers.right.scenario import COST_CENTS, Ask, Bound, NotAnswered, Size
from bench.processes import HOST, Placement, Process, free_port, start_valkey

_START_S, _ANSWER_S = 60, 30


class _Instance:
    """The caller's connection to one process."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self._port = port
        self._waiting: dict[str, asyncio.Future[str]] = {}

    async def connect(self) -> None:
        """Connect once the process listens."""
        await asyncio.to_thread(self.process.wait_for, lambda: "LISTENING" in self.process.tail(), _START_S)
        self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
        self._reading = asyncio.create_task(self._read())

    async def ask(self, line: str) -> str:
        """Send a line that starts with an id, and get what comes back under it."""
        name = line.partition(" ")[0]
        if self._reading.done():
            raise NotAnswered(name)
        future = self._waiting[name] = asyncio.get_running_loop().create_future()
        self._writer.write(f"{line}\n".encode())
        try:
            return await asyncio.wait_for(future, _ANSWER_S)
        except TimeoutError as late:
            raise NotAnswered(name) from late

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                name, said = line.decode().split()
                if not (future := self._waiting.pop(name)).done():
                    future.set_result(said)
        except OSError:
            pass  # it was killed
        for name, future in self._waiting.items():
            if not future.done():
                future.set_exception(NotAnswered(name))

    async def close(self) -> None:
        """Stop the process; the connection ends with it."""
        await asyncio.to_thread(self.process.stop)
        await self._reading


class LimiterProcesses:
    """`async with LimiterProcesses(name, …) as contender`. A budget is a limit whose requests cost more."""

    bills = False

    def __init__(self, name: str, peers: Peers, folder: Path, placement: Placement, size: Size) -> None:
        self._name, self._peers, self._size = name, peers, size
        self._folder, self._placement = folder, placement

    async def __aenter__(self) -> Self:
        self._redis, redis_port = await asyncio.to_thread(
            start_valkey, self._folder, self._placement.rest, appendfsync=None
        )
        self._instances = [self._start(n, redis_port) for n in range(2)]
        for instance in self._instances:
            await instance.connect()
        return self

    def _start(self, number: int, redis_port: int) -> _Instance:
        port = free_port()
        bounds = redis_port, port, self._size.limit, self._size.budget_cents
        module = "bench.peers.clients.limiter"
        command = [self._peers.python, "-m", module, "serve", self._name, *map(str, bounds)]
        return _Instance(Process(f"{self._name}-{number}", command, self._placement.pod, self._folder), port)

    async def __aexit__(self, *_: object) -> None:
        for instance in self._instances:
            await instance.close()
        await asyncio.to_thread(self._redis.stop)

    async def ask(self, ask: Ask, instance: int) -> str | None:
        cost = COST_CENTS if ask.bound is Bound.BUDGET else 1
        said = await self._instances[instance].ask(f"{ask.name} {ask.bound} {cost}")
        if said not in ("yes", "no"):
            raise NotAnswered(said)
        return "" if said == "yes" else None

    async def report(self, ask: Ask, token: str) -> None:
        """Neither library takes results."""

    async def billed(self, admitted: set[str]) -> Counter[str]:
        raise AssertionError("a library does not bill")

    def freeze(self) -> None:
        self._redis.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._redis.signal(signal.SIGCONT)

    def kill(self) -> None:
        self._instances[0].process.signal(signal.SIGKILL)
