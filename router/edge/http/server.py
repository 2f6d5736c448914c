"""An HTTP port: uvicorn with httptools, in the pod's loop, for one ASGI application. Keep-alive, bounded in all.

Limits: 16 KiB of request head, `timeout_s` for a request or an idle connection, `max_connections` at once
(`router.edge.http.connections` says which one goes).
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import uvicorn
from msgspec import Struct
from starlette.types import ASGIApp

from router.edge.http.connections import Connections
from router.edge.http.listen import listening_socket, raise_open_files
from router.edge.http.protocol import BoundedProtocol
from router.telemetry import Event

_BACKLOG = 256
_LAST_BYTES_S = 1.0
"""How long a request may still take to arrive, once the port closes."""

log = logging.getLogger("router.http")


class TlsFiles(Struct, frozen=True):
    """Files of an HTTPS port. With `client_ca`, a client needs a certificate of that authority."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class HttpServer:
    """Serves an application. `start` listens; `stop` ends what is under way, and closes all connections.

    At most `max_connections` are open, and at most as many as half of the files that the process may open: raised to
    its hard bound, so that NATS and Redis have theirs.
    """

    def __init__(
        self,
        application: ASGIApp,
        *,
        timeout_s: float = 10.0,
        max_connections: int = 2048,
        tls: TlsFiles | None = None,
        graceful_s: int = 1,
    ) -> None:
        self._application = application
        self._timeout_s, self._max_connections = timeout_s, max_connections
        self._tls = tls
        self._graceful_s = graceful_s
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. With `port` 0 the system chooses a free one.

        :raises OSError: the address cannot be bound, or a TLS file cannot be used.
        """
        files = raise_open_files()
        maximum = self._max_connections if files is None else max(1, min(self._max_connections, files // 2))
        connections = Connections(maximum, self._timeout_s, asyncio.get_running_loop().time)
        tls = self._tls
        config = uvicorn.Config(
            self._application,
            # A factory in place of the class: uvicorn only calls it.
            http=partial(BoundedProtocol, open_connections=connections),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # no log lines about clients' mistakes
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=int(self._timeout_s) + 1,  # `connections` cuts earlier
            timeout_graceful_shutdown=self._graceful_s,
            ssl_certfile=None if tls is None else tls.cert,
            ssl_keyfile=None if tls is None else tls.key,
            ssl_ca_certs=None if tls is None else tls.client_ca,
            ssl_cert_reqs=ssl.CERT_NONE if tls is None or tls.client_ca is None else ssl.CERT_REQUIRED,
        )
        config.load()  # reads the TLS files: before the port is open
        opened = listening_socket(host, port, backlog=_BACKLOG)
        address, bound = opened.getsockname()[:2]
        self._server = _Server(config, connections)
        self._serving = asyncio.create_task(self._server.serve([opened]), name="http")
        shown = f"[{address}]" if ":" in address else address
        log.info(
            "listening on %s:%d, %d connections", shown, bound, maximum, extra=_fields(Event.HTTP_LISTENING, bound)
        )
        return int(bound)

    def renew_tls(self) -> None:
        """Read certificate and key again, for new connections.

        :raises OSError: a file cannot be read, or the two do not fit; the old ones stay in use.
        """
        if self._server is not None and self._tls is not None and self._server.config.ssl is not None:
            # A context of its own first: a context that failed half-way is of no use.
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self._tls.cert, self._tls.key)
            self._server.config.ssl.load_cert_chain(self._tls.cert, self._tls.key)

    async def stop(self) -> None:
        """Stop listening, let requests end for the time given, and close every connection; idempotent."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            # uvicorn would wait for the rest of a request, however long its client takes.
            while not self._serving.done():
                self._server.cut_late(_LAST_BYTES_S)
                await asyncio.wait([self._serving], timeout=0.1)
            await asyncio.gather(self._serving, return_exceptions=True)
            self._server = self._serving = None


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the pod has its own."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    def cut_late(self, timeout_s: float) -> None:
        """Cut connections that have waited for so long."""
        self._connections.cut_late(timeout_s)

    async def on_tick(self, counter: int) -> bool:
        """Cut connections that have waited too long; uvicorn calls it ten times a second."""
        self._connections.cut_late()
        return await super().on_tick(counter)


def _fields(event: Event, port: int) -> dict[str, object]:
    return {"event": event, "port": port}
