"""A primary, its replicas and the sentinels that watch them: real servers, on free ports of 127.0.0.1."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from redis import Redis

from router.store.servers.rights import Server
from tests.servers import START_TIMEOUT_S, ServerProcess, ValkeyProcess, valkey_binary

MASTER = "fleet"
DOWN_AFTER_MS = 1000


class SentinelProcess(ServerProcess):
    """One sentinel. `config` is added to its file."""

    def __init__(self, data: Path, primary: int, *, quorum: int, config: str = "") -> None:
        super().__init__(data)
        self._primary, self._quorum, self._config = primary, quorum, config

    def command(self) -> list[str]:
        """Writes the file, which the sentinel changes; an existing one stays, as after a restart."""
        file = self.data / "sentinel.conf"
        if not file.exists():
            file.write_text(
                f"port {self.port}\nbind 127.0.0.1\ndir {self.data}\n"
                f"sentinel monitor {MASTER} 127.0.0.1 {self._primary} {self._quorum}\n"
                f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {MASTER} 5000\nsentinel parallel-syncs {MASTER} 2\n{self._config}\n"
            )
        return [str(valkey_binary()), str(file), "--sentinel"]

    def answers(self) -> bool:
        """Asks for the process id, so that another server on this port is not taken for ours."""
        with Redis(port=self.port, protocol=2) as client:
            try:
                return int(client.info("server")["process_id"]) == self.pid
            except Exception as error:  # redis-py's errors; the server boots, or wants a login that we lack
                return "NOAUTH" in str(error)

    def ask(self, *words: str) -> object:
        """One command, as text."""
        with Redis(port=self.port, decode_responses=True, protocol=2) as client:
            return client.execute_command(*words)


class SentinelSet:
    """`with SentinelSet(folder) as servers`: replicas are in sync and every sentinel knows all others."""

    def __init__(self, folder: Path, *, replicas: int = 2, sentinels: int = 3, args: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._args = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *args)
        self._counts = replicas, sentinels
        self.servers: list[ValkeyProcess] = []
        self.sentinels: list[SentinelProcess] = []

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Of the sentinels."""
        return tuple(("127.0.0.1", sentinel.port) for sentinel in self.sentinels)

    def named(self, sentinel: int = 0) -> int:
        """The port of the primary that a sentinel names."""
        answer = self.sentinels[sentinel].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        assert isinstance(answer, list)
        return int(answer[1])

    def server(self, port: int) -> ValkeyProcess:
        """The server at a port."""
        return next(server for server in self.servers if server.port == port)

    def __enter__(self) -> Self:
        try:
            return self._start()
        except BaseException:
            self.__exit__()
            raise

    def _start(self) -> Self:
        replicas, sentinels = self._counts
        primary = self._server(0)
        for number in range(1, replicas + 1):
            self._server(number, "--replicaof", "127.0.0.1", str(primary.port))
        _wait(lambda: self._info(primary, "connected_slaves") == replicas)
        for number in range(sentinels):
            data = self._folder / f"sentinel-{number}"
            sentinel = SentinelProcess(data, primary.port, quorum=sentinels // 2 + 1)
            self.sentinels.append(sentinel)
            sentinel.start()
        _wait(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels))
        return self

    def _server(self, number: int, *follow: str) -> ValkeyProcess:
        server = ValkeyProcess(self._folder / f"server-{number}", args=(*self._args, *follow))
        server.rights = Server(wait_replicas=True)
        self.servers.append(server)
        return server.start()

    def _info(self, server: ValkeyProcess, field: str) -> int:
        with Redis(port=server.port, decode_responses=True, protocol=2) as client:
            return int(client.info("replication")[field])

    def _knows_all(self, sentinel: SentinelProcess) -> bool:
        answer = sentinel.ask("SENTINEL", "MASTER", MASTER)
        assert isinstance(answer, list)
        facts = dict(zip(answer[::2], answer[1::2], strict=True))
        others = len(self.sentinels) - 1
        return int(facts["num-slaves"]) == self._counts[0] and int(facts["num-other-sentinels"]) == others

    def __exit__(self, *_: object) -> None:
        for server in (*self.sentinels, *self.servers):
            server.stop()


def _wait(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError("the sentinels did not come together")
        time.sleep(0.05)  # what sentinels know has no event
