"""The fleet under fault: Valkey and NATS with their data on disk, a proxy before each, pods and workers behind these.

Every process that a fault takes away is started again by the fault itself. A process that ends unasked is noted.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

import nats.errors
import nats.js.errors
from nats.js.api import ConsumerConfig, DiscardPolicy, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

from router.bus.streams.consumers import ACKS, RESULTS, WORKERS
from tests.chaos.load import TENANTS, TOLD
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import Fault
from tests.fleet.foreign import ASSIGN, Foreign
from tests.fleet.harness import Document, Fleet, Pod, until
from tests.servers import NatsProcess, ServerProcess, ValkeyProcess, to_its_end

ROOT = Path(__file__).parents[2]
CONSUMERS = (("ASSIGN", WORKERS), ("ACK", ACKS), ("RESULT", RESULTS))
DELAY_S = 0.08
READY_S = 60.0
"""A pod starts in a second or two; three of them, killed together on a machine that does other work, take longer."""
_TERM_S = 20.0
PATIENCE_S = 60.0

T = TypeVar("T")


class WorkerProcess:
    """One process of `tests.chaos.worker`, with what `world` needs of a pod too."""

    def __init__(self, name: str, folder: Path, url: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._url = url
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *, wait: bool = False) -> Self:
        """Start; a worker has no readiness to wait for."""
        del wait
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.worker", self._url, self.name),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self


async def insisted(call: Callable[[], Awaitable[T]], *fine: type[Exception]) -> T:
    """Call until it succeeds or fails in one of these ways, which count as done: NATS may be away."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await call()
        except fine:
            return cast("T", None)
        except (nats.errors.Error, nats.js.errors.Error, OSError):
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.2)


class World:
    """`async with World(…)`. `ack_wait_s`: of the consumers, where it is not to be the fleet's 30 s.

    `valkey`, `nats`: servers of one's own, else a Valkey that writes its log and blocks CONFIG. `env` is every pod's,
    and so is what `servers_env` says of servers and proxies once they run. `workers_direct`: workers connect to NATS
    itself, not by the proxy.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pods: int,
        workers: int = 2,
        fsync: str = "always",
        ack_wait_s: int | None = None,
        valkey: ValkeyProcess | None = None,
        nats: NatsProcess | None = None,
        tenants: Mapping[str, Document] = TENANTS,
        env: Mapping[str, str] | None = None,
        servers_env: "Callable[[World], Mapping[str, str]]" = lambda _: {},
        workers_direct: bool = False,
    ) -> None:
        # Managed services block CONFIG, and nothing may need it.
        args = ("--appendonly", "yes", "--appendfsync", fsync, "--rename-command", "CONFIG", "")
        self.tenants = tenants
        self._env = dict(env or {})
        self._servers_env = servers_env
        self.fleet = Fleet(
            folder,
            pods=0,
            valkey=valkey or ValkeyProcess(folder / "valkey", args=args),
            nats=nats,
            policies={name: {"default": document} for name, document in tenants.items()},
        )
        self._counts = pods, workers
        self._ack_wait_s = ack_wait_s
        self._workers_direct = workers_direct
        self._stack = AsyncExitStack()
        self.workers: list[WorkerProcess] = []
        self.surprises: list[str] = []
        self._locks: dict[int, asyncio.Lock] = {}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            fleet = await stack.enter_async_context(self.fleet)
            self.redis, self.nats = Proxy(fleet.valkey.port), Proxy(fleet.nats.port)
            for proxy in (self.redis, self.nats):
                await proxy.start()
                stack.push_async_callback(proxy.close)
            env = (
                {
                    "ROUTER_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
                    "ROUTER_NATS_URL": f"nats://127.0.0.1:{self.nats.port}",
                    "ROUTER_DRAIN_TIMEOUT": "5s",
                    "ROUTER_RESULT_SUBJECT_PREFIXES": f"{TOLD}.",
                }
                | self._env
                | dict(self._servers_env(self))
            )
            for _ in range(self._counts[0]):
                await fleet.pod(**env).start()
            self.caller = await stack.enter_async_context(Foreign(fleet.nats.url))
            copies = int(env.get("ROUTER_STREAM_REPLICAS", "1"))
            told = StreamConfig(name=TOLD.upper(), subjects=[f"{TOLD}.>"], duplicate_window=3600, num_replicas=copies)
            await self.caller.client.jetstream().add_stream(told)
            await self._set_ack_wait()
            stack.push_async_callback(self._end_workers)
            by_proxy = f"nats://127.0.0.1:{self.nats.port}"
            for n in range(self._counts[1]):
                url = fleet.nats.url if self._workers_direct else by_proxy
                worker = WorkerProcess(f"worker-{n + 1}", fleet.folder, url)
                self.workers.append(await worker.start())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._stack.aclose()

    async def _set_ack_wait(self) -> None:
        if self._ack_wait_s is None:
            return
        js = self.caller.client.jetstream()
        for stream, name in CONSUMERS:
            config: ConsumerConfig = (await js.consumer_info(stream, name)).config
            config.ack_wait = self._ack_wait_s
            await js.add_consumer(stream, config)

    async def _end_workers(self) -> None:
        for worker in self.workers:
            if worker.process is not None and worker.process.returncode is None:
                worker.process.kill()
                await worker.process.wait()

    async def apply(self, fault: Fault) -> None:
        """Do it, and undo it: at the end connections pass again and processes run (a pod need not be ready yet)."""
        hold_s = fault.hold_ms / 1000
        what, _, act = fault.kind.partition(".")
        if what in ("pod", "worker"):
            await self._to_one_of(self.fleet.pods if what == "pod" else self.workers, fault, act, hold_s)
        elif what == "stream":
            await self.to_stream(act, hold_s)
        elif act in ("kill", "freeze"):
            await self._to_server(self.fleet.nats if what == "nats" else self.fleet.valkey, act, hold_s)
        else:
            await self._to_network(self.nats if what == "nats" else self.redis, fault, act, hold_s)

    async def _to_network(self, proxy: Proxy, fault: Fault, act: str, hold_s: float) -> None:
        match act:
            case "cut" | "half":
                await proxy.end(
                    None if fault.everywhere else fault.pick,
                    after_bytes=fault.after_bytes,
                    upstream=fault.upstream,
                    hold_s=hold_s,
                    half=act == "half",
                )
            case "delay":
                await proxy.delay(DELAY_S, hold_s)
            case "hole":
                await proxy.hole(hold_s, upstream=fault.upstream)
            case _:
                raise AssertionError(act)

    async def _to_server(self, server: ServerProcess, act: str, hold_s: float) -> None:
        async with self._lock(server):
            if act == "kill":
                await to_its_end(server.kill)
                await asyncio.sleep(hold_s)
                await to_its_end(server.start)
            else:
                server.freeze()
                await asyncio.sleep(hold_s)
                server.thaw()

    async def to_stream(self, act: str, hold_s: float) -> None:
        """ASSIGN takes nothing more; or a stream of somebody else takes the subject of acks. Then as before."""
        js = self.caller.client.jetstream()
        async with self._lock(act):
            match act:
                case "full":
                    config = (await insisted(lambda: js.stream_info("ASSIGN"))).config
                    tiny = config.evolve(max_msgs=1, discard=DiscardPolicy.NEW)
                    await insisted(lambda: js.update_stream(tiny))
                    await asyncio.sleep(hold_s)
                    await insisted(lambda: js.update_stream(config))
                case "overlap":
                    theirs = StreamConfig(name="THEIRS", subjects=[f"{ASSIGN}.*"])
                    await insisted(lambda: js.delete_stream("ACK"), NotFoundError)
                    await insisted(lambda: js.add_stream(theirs), BadRequestError)
                    await asyncio.sleep(hold_s)
                    await insisted(lambda: js.delete_stream("THEIRS"), NotFoundError)
                case _:
                    raise AssertionError(act)

    async def _to_one_of(self, many: "list[Pod] | list[WorkerProcess]", fault: Fault, act: str, hold_s: float) -> None:
        one = many[fault.pick % len(many)]
        async with self._lock(one):
            process = one.process
            assert process is not None
            if process.returncode is not None:
                self.surprises.append(f"{one.name} had ended by itself with code {process.returncode} before {fault}")
            elif act == "freeze":
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(hold_s)
                process.send_signal(signal.SIGCONT)
                return
            elif act == "term":
                await self._terminated(one.name, process, fault)
            else:
                process.kill()
                await process.wait()
                await asyncio.sleep(hold_s)
            await one.start(wait=False)

    async def _terminated(self, name: str, process: asyncio.subprocess.Process, fault: Fault) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(process.wait(), _TERM_S)
        except TimeoutError:
            self.surprises.append(f"{name} did not end within {_TERM_S:g} s of SIGTERM at {fault}")
            process.kill()
            await process.wait()
            return
        if code not in (0, -signal.SIGTERM):  # the signal's own end: it came before the process could take signals
            self.surprises.append(f"{name} ended with code {code} after SIGTERM at {fault}")

    def _lock(self, target: object) -> asyncio.Lock:
        return self._locks.setdefault(id(target), asyncio.Lock())

    async def until_whole(self) -> None:
        """All pods are ready with nothing off; a process that has ended by itself is noted and started again.

        :raises AssertionError: a pod does not get ready, or stays degraded.
        """
        processes: list[Pod | WorkerProcess] = [*self.fleet.pods, *self.workers]
        for one in processes:
            assert one.process is not None
            if one.process.returncode is not None:
                self.surprises.append(f"{one.name} had ended by itself with code {one.process.returncode}")
                await one.start(wait=False)
        await asyncio.gather(*(pod.until_ready(READY_S) for pod in self.fleet.pods))
        await until(self._nothing_is_off, READY_S, "nothing is off on any pod")

    async def _nothing_is_off(self) -> bool:
        return not any([(await pod.readyz())[1].get("degraded", ["unknown"]) for pod in self.fleet.pods])
