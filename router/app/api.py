"""The HTTP API of a pod: it starts when its keys can be read, and follows its files."""

import asyncio
import logging
import time
from pathlib import Path

from router.app.deciding import DecideParts
from router.app.platform import Platform
from router.bus.final_inbox import BusFinalInbox
from router.domain.api_key import ApiKey
from router.domain.degraded import Degradable
from router.edge.api.askers import Anybody, ApiKeys
from router.edge.api.decide import DecideRoutes
from router.edge.api.decisions import DecisionRoutes, GetDecision
from router.edge.api.door import Askers, Door
from router.edge.api.results import ResultRoutes
from router.edge.api.tasks import TaskRoutes
from router.edge.http.server import HttpServer, TlsFiles
from router.errors import BusError, InvalidInput
from router.log_throttle import LogThrottle
from router.telemetry import Event
from router.usecases.admin.wrong_secrets import API_KEY, WrongSecrets
from router.wire.api_keys import decode_keys

log = logging.getLogger("router.api")


class ApiParts:
    """Builds the API. Nothing listens before `run`."""

    def __init__(self, platform: Platform, deciding: DecideParts, get_decision: GetDecision) -> None:
        s, t = platform.settings, platform.telemetry
        self._settings, self._readiness = s, platform.readiness
        self.wrong_keys = WrongSecrets(API_KEY, platform.alerts, count=t.api_wrong_keys.inc, clock=time.monotonic)
        self._keys = ApiKeys(self.wrong_keys.seen)
        self._read: bytes | None = None
        self._tls = None
        if s.api_tls_cert is not None and s.api_tls_key is not None:
            self._tls = TlsFiles(s.api_tls_cert, s.api_tls_key, s.api_tls_client_ca)
        self._tls_read = b""
        self._is_open = s.api_auth == "open"
        askers: Askers = Anybody(s.api_hosts) if self._is_open else self._keys
        self._finals = BusFinalInbox(platform.bus)
        decide = DecideRoutes(deciding.decide.handle)
        door = Door(
            askers,
            decide,
            DecisionRoutes(get_decision),
            ResultRoutes(platform.publisher, platform.streams.stores),
            TaskRoutes(decide, self._finals, platform.store.tasks.records),
            pod=s.pod_name,
            count=lambda route, status: t.api_requests.labels(route, str(status)).inc(),
            json_only=self._is_open,
            origins=s.api_cors_origins,
        )
        self._server = HttpServer(
            door, max_connections=s.api_max_connections, tls=self._tls, graceful_s=s.drain_timeout_s
        )
        self._throttle = LogThrottle(time.monotonic)
        self._listens = self._stopped = self._hears_finals = False
        self.port = 0

    async def run(self) -> None:
        """Start the API as soon as its files allow it, and use changed ones; until cancelled."""
        while True:
            await self.poll()
            await asyncio.sleep(self._settings.secrets_poll_ms / 1000)

    async def poll(self) -> None:
        """Read the files that have changed, and start if nothing is in the way. Never raises for bad files."""
        try:
            if not self._is_open:
                await self._read_keys()
            await self._serve()
        except (OSError, InvalidInput, BusError) as fault:
            self._failed(str(fault))
        else:
            self._readiness.restore(Degradable.API)
            self._throttle.over()

    async def stop(self) -> None:
        """Take no more requests, and return when the accepted ones have their answers."""
        self._stopped = True
        self._finals.close()
        await self._server.stop()

    async def _read_keys(self) -> None:
        path = self._settings.api_keys_file
        if path is None:
            raise OSError("ROUTER_API_KEYS_FILE is not set")
        data = await asyncio.to_thread(_read, path)
        if data == self._read:
            return
        keys: list[ApiKey] = await asyncio.to_thread(decode_keys, data)
        self._keys.replace(keys)
        self._read = data
        log.info("%d API keys are in use", len(keys), extra={"event": Event.API_KEYS_READ, "count": len(keys)})

    async def _serve(self) -> None:
        tls = b"" if self._tls is None else await asyncio.to_thread(_read_tls, self._tls)
        if not self._listens and not self._stopped:
            if not self._hears_finals:
                await self._finals.open()
                self._hears_finals = True
            self.port = await self._server.start(self._settings.api_host, self._settings.api_port)
            self._listens, self._tls_read = True, tls
        elif tls != self._tls_read:
            self._server.renew_tls()
            self._tls_read = tls

    def _failed(self, why: str) -> None:
        kept = "what was read before stays in use: " if self._listens else ""
        self._readiness.degrade(Degradable.API, kept + why)
        if (suppressed := self._throttle.due(why)) is not None:
            state = "keeps its old files" if self._listens else "is not open"
            fields = {"event": Event.API_FILES_REFUSED, "unsaid": suppressed}
            log.error("the API %s: %s", state, why, extra=fields)


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _read_tls(tls: TlsFiles) -> bytes:
    return tls.cert.read_bytes() + tls.key.read_bytes()
