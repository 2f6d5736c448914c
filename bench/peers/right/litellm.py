"""The scenario's contender LiteLLM: two proxies, which bill by a custom callback and take no reports."""

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Self

from bench.peers import litellm_proxy
from bench.peers.http_client import HttpClient
from bench.peers.install import Peers
from bench.peers.right.scenario import Ask, Bound, NotAnswered, Size
from bench.processes import Placement, start_valkey

_ANSWER_S, _BILLED_S, _QUIET_S = 30, 20.0, 3.0
_REFUSED = frozenset({422, 429})
"""A key above its limit is answered with 429, one above its budget with 422."""


class Proxies:
    """`async with Proxies(…) as contender`."""

    bills = True

    def __init__(self, peers: Peers, folder: Path, placement: Placement, size: Size) -> None:
        self._peers, self._folder, self._placement, self._size = peers, folder, placement, size

    async def __aenter__(self) -> Self:
        self._redis, redis_port = await asyncio.to_thread(
            start_valkey, self._folder, self._placement.rest, appendfsync=None
        )
        folders = [self._folder / f"proxy-{n}" for n in range(2)]
        started = []
        for folder in folders:
            folder.mkdir()
            bounds = {"limit": self._size.limit, "budget_cents": self._size.budget_cents}
            cpus = self._placement.pod
            started.append(litellm_proxy.start(self._peers, folder, folder.name, cpus, redis_port=redis_port, **bounds))
        self._proxies = [process for process, _ in started]
        self._clients = [HttpClient(port) for _, port in started]
        self._files = [folder / "bills" for folder in folders]
        try:
            for process, port in started:
                await asyncio.to_thread(litellm_proxy.wait, process, port)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        for client in self._clients:
            client.close()
        for process in (*self._proxies, self._redis):
            await asyncio.to_thread(process.stop)

    async def ask(self, ask: Ask, instance: int) -> str | None:
        body = litellm_proxy.request(ask.name)
        try:
            async with asyncio.timeout(_ANSWER_S):
                status, said = await self._clients[instance].post(litellm_proxy.PATH, f"sk-{ask.bound}", body)
        except (OSError, TimeoutError) as fault:
            raise NotAnswered(ask.name) from fault
        if status == 200:
            return ""
        if status in _REFUSED:
            return None
        raise NotAnswered(f"{status}: {said[:200]!r}")

    async def report(self, ask: Ask, token: str) -> None:
        """The proxy makes the call itself and takes no results."""

    async def billed(self, admitted: set[str]) -> Counter[str]:
        """Calls of the callback: until all that were admitted were billed and none came for 3 s, or 20 s are over."""
        loop = asyncio.get_running_loop()
        give_up, changed, seen = loop.time() + _BILLED_S, loop.time(), -1
        while True:
            bills = self._read()
            if bills.total() != seen:
                seen, changed = bills.total(), loop.time()
            complete = not admitted - bills.keys() and loop.time() - changed > _QUIET_S
            if complete or loop.time() > give_up:
                return bills
            await asyncio.sleep(0.1)

    def _read(self) -> Counter[str]:
        lines = [line for file in self._files if file.exists() for line in file.read_text().splitlines()]
        return Counter(name for name, _ in map(json.loads, lines) if name.startswith(tuple(f"{b}-" for b in Bound)))

    def freeze(self) -> None:
        self._redis.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._redis.signal(signal.SIGCONT)

    def kill(self) -> None:
        self._proxies[0].signal(signal.SIGKILL)
