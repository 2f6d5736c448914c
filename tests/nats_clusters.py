"""Three NATS servers with JetStream, in the place of a fleet's one server."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Self

from nats.errors import Error
from nats.js.errors import Error as StreamError

from tests.nats_client import connect
from tests.servers import NatsProcess, free_port

SERVERS = 3
READY_S = 60.0


class NatsCluster(NatsProcess):
    """`url` is the first server's; clients learn the others from it. `kill` and the like are the servers' own."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        routes = [free_port() for _ in range(SERVERS)]
        joined = ", ".join(f"'nats://127.0.0.1:{port}'" for port in routes)
        self.servers = [
            NatsProcess(
                data / f"server-{number}",
                extra=f"cluster {{ name: fleet, listen: 127.0.0.1:{port}, routes: [{joined}] }}",
            )
            for number, port in enumerate(routes)
        ]

    @property
    def urls(self) -> str:
        """All servers, as pods want them."""
        return ",".join(server.url for server in self.servers)

    def start(self) -> Self:
        """All servers; returns when JetStream has a leader."""
        for server in self.servers:
            server.start()
        self.port, self.process = self.servers[0].port, self.servers[0].process
        give_up = time.monotonic() + READY_S
        while not asyncio.run(self._has_leader()):
            if time.monotonic() > give_up:
                raise RuntimeError("JetStream has no leader")
            time.sleep(0.1)  # an election has no event for us
        return self

    def stop(self) -> None:
        """All servers."""
        for server in self.servers:
            server.stop()
        self.process = None

    async def leader(self, stream: str) -> NatsProcess:
        """The server that leads a stream.

        :raises RuntimeError: none does.
        """
        for server in self.servers:
            with contextlib.suppress(Error, StreamError, OSError):
                async with asyncio.timeout(5):
                    client = await connect(server.url, allow_reconnect=False)
                    try:
                        cluster = (await client.jetstream().stream_info(stream)).cluster
                    finally:
                        await client.close()
                if cluster is not None and cluster.leader is not None:
                    return next(s for s in self.servers if cluster.leader.endswith(f"-{s.port}"))
        raise RuntimeError(f"{stream} has no leader")

    async def _has_leader(self) -> bool:
        with contextlib.suppress(Error, StreamError, OSError, TimeoutError):
            client = await connect(self.servers[0].url, allow_reconnect=False)
            try:
                await client.jetstream(timeout=1).account_info()
            finally:
                await client.close()
            return True
        return False
