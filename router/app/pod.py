"""One pod: its parts, and the order in which they start and stop.

    start  HTTP (alive, not ready) → gate → NATS → store → seed → streams → consumers → the decide subscription
    stop   not ready → no more requests (NATS, API) → answers sent → assignments published → consumers stopped →
           disconnect

Redis or NATS may be unavailable at boot: the pod starts, is not ready, reports why, and retries. It takes requests from
the first readiness on; later outages are metrics and alerts. Readiness is only withdrawn while a stream covers a
request/reply subject, or NATS does not permit the subscription to decide requests.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable

from router import __version__
from router.app.adapter_settings import bus_options, secrets_of, short_tokens, tokens_of
from router.app.boot import Boot
from router.app.every_second import EverySecond
from router.app.parts import Parts
from router.app.redis_nodes import insecure_redis
from router.app.rotation import Rotation
from router.errors import StartupRefused
from router.logs import configure
from router.settings import Settings
from router.settings.tokens import SHORTEST_SOON
from router.telemetry import Event, LoopLag

log = logging.getLogger("router.app")


async def serve(settings: Settings) -> int:
    """Run a pod until SIGTERM or SIGINT and return the exit code of the process.

    0 after a clean stop, 2 if the settings contradict the store (the log holds the details).
    """
    configure(settings.log_level, settings.log_format, pod=settings.pod_name, secrets=secrets_of(settings))
    pod = Pod(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    try:
        await pod.start()
        await pod.until(stop)
    except StartupRefused as refused:
        log.critical("%s", refused, extra={"event": Event.STARTUP_REFUSED})
        return 2
    finally:
        await pod.stop()
    return 0


class Pod:
    """A pod's life: start, serve, drain, stop."""

    def __init__(self, settings: Settings) -> None:
        self._s = settings
        self._parts = Parts(settings)
        self._platform = self._parts.platform
        self._lag = LoopLag(self._platform.telemetry.loop_lag)
        self._rotation = self._rotated_parts()
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start everything and return at once. Unavailable servers are waited for in the background.

        :raises StartupRefused: a setting that only pods need is missing.
        """
        s, platform = self._s, self._platform
        if s.audit_identity == "hashed" and s.audit_identity_key is None:
            raise StartupRefused("ROUTER_AUDIT_IDENTITY is hashed and has no key: set ROUTER_AUDIT_IDENTITY_KEY_FILE")
        log.info("pod %s of version %s starts", s.pod_name, __version__, extra={"event": Event.POD_STARTING})
        for holder in short_tokens(s):
            log.warning(
                "the admin token of %s has fewer than %d characters; the next release refuses it: make a longer one",
                holder,
                SHORTEST_SOON,
                extra={"event": Event.ADMIN_TOKEN_SHORT},
            )
        for weakened in insecure_redis(s):
            log.warning(
                "TLS to Redis does not prove who the server is (%s); remove the parameter, set ROUTER_REDIS_TLS_CA",
                weakened,
                extra={"event": Event.STORE_TLS_INSECURE},
            )
        await self._parts.services.http.start(s.http_host, s.http_port)
        self._lag.start()
        await platform.gate.poll()
        await platform.bus.start()
        self._run(Boot(self._parts, self._run).run(), "boot")
        self._run(EverySecond(self._parts).run(), "ticker")
        self._run(self._watch_servers(), "servers")
        self._run(platform.gate.watch(s.cp_poll_ms / 1000), "gate")
        if self._rotation.watches:
            self._run(self._rotation.run(s.secrets_poll_ms / 1000), "rotation")

    def _rotated_parts(self) -> Rotation:
        platform, tokens = self._platform, self._parts.services.tokens

        async def nats(s: Settings) -> None:
            await platform.bus.renew(bus_options(s))

        async def admin(s: Settings) -> None:
            tokens.replace(tokens_of(s))

        parts = {"nats": nats, "redis": platform.store.renew, "admin": admin}
        return Rotation(self._s, platform.telemetry, parts, secrets_of)

    async def until(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set.

        :raises StartupRefused: this pod must not run against this store.
        """
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                await asyncio.wait([stopping, *self._running], return_when=asyncio.FIRST_COMPLETED)
                for task in [t for t in self._running if t.done()]:
                    self._running.remove(task)
                    if (fault := task.exception()) is not None:
                        raise fault
        finally:
            stopping.cancel()

    def _run(self, work: Awaitable[None], name: str) -> None:
        self._running.append(asyncio.ensure_future(_named(work, name)))

    async def _watch_servers(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._platform.tick()

    async def stop(self) -> None:
        """Drain and stop. Accepted work is answered and published, or left to the other pods."""
        platform = self._platform
        platform.draining = True
        platform.readiness.not_ok("serving", reason="draining")
        log.info("pod %s drains", self._s.pod_name, extra={"event": Event.POD_DRAINING})
        try:
            async with asyncio.timeout(self._s.drain_timeout_s):
                await self._drain()
        except TimeoutError:
            log.error("drain timed out; the other pods take over the remaining work")
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await platform.keeper.stop()
        await platform.publisher.stop(1.0)
        await platform.bus.close()
        await platform.store.close()
        self._lag.stop()
        self._parts.deciding.standstill.stop()
        await asyncio.to_thread(platform.tracing.close)
        await self._parts.services.http.stop()
        log.info("pod %s has stopped", self._s.pod_name, extra={"event": Event.POD_STOPPED})

    async def _drain(self) -> None:
        await asyncio.gather(self._parts.deciding.endpoint.pause(), self._parts.api.stop())
        await self._parts.deciding.decide.drained()
        await self._parts.tasks.dispatcher.drained()
        await self._parts.services.drained()
        await self._parts.tasks.drained()
        await self._parts.deciding.watch.drained()
        await self._parts.audit.drained()


async def _named(work: Awaitable[None], name: str) -> None:
    current = asyncio.current_task()
    if current is not None:
        current.set_name(name)
    await work
