"""A nats-py client that never talks without TLS once TLS is asked for. Pods, workers and commands connect with it.

TLS is asked for by a `tls://` address or by any TLS option. nats-py alone lets the server decide: it upgrades only if
the server's first line (INFO, in clear text) says `tls_required`. An attacker in between can remove that word, and
nats-py then sends its login in clear text. This client

- upgrades if the server requires or offers TLS, and else closes the connection without having sent anything;
- builds the login (CONNECT) only on a connection that is encrypted, whatever led there: reconnects, and servers that
  the cluster announces, included;
- ignores addresses announced in clear text. The server announces them again after the login;
- tries again after a failed handshake. nats-py alone waits for the connection's end, which asyncio then never reports.
"""

from typing import Any

from nats import errors
from nats.aio.client import Client

_TLS_SCHEMES = ("tls://", "wss://")
_TLS_OPTIONS = ("tls", "tls_hostname", "tls_handshake_first")


class TlsRefused(errors.Error):
    """The server offers no TLS, and TLS is asked for; nothing was sent to it."""


class TlsClient(Client):
    """nats-py's client with the guarantee of the module."""

    tls_required = False
    """Whether `connect` was asked for TLS."""

    async def connect(self, *args: Any, **options: Any) -> None:
        """Connect as nats-py does; see the module.

        :raises TlsRefused: TLS is asked for, the server offers none, and `allow_reconnect` is off.
        """
        servers = args[0] if args else options.get("servers", ())
        urls = [servers] if isinstance(servers, str) else servers
        self.tls_required = any(options.get(name) for name in _TLS_OPTIONS) or any(
            url.lower().startswith(_TLS_SCHEMES) for url in urls
        )
        await super().connect(*args, **options)

    @property
    def is_encrypted(self) -> bool:
        """Whether the present connection is encrypted."""
        writer = getattr(self._transport, "_io_writer", None)
        return writer is not None and writer.get_extra_info("ssl_object") is not None

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except BaseException:
            # nats-py waits for this connection's end before the next try. After a failed handshake that end never
            # comes.
            failed, self._transport = self._transport, None
            if failed is not None:
                failed.close()  # type: ignore[no-untyped-call]  # nats-py's
            raise

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if self.tls_required and not self.is_encrypted:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise self._refused()
            info["tls_required"] = True  # nats-py upgrades only if this field is set
            info.pop("connect_urls", None)
        await super()._process_info(info, initial_connection)

    def _connect_command(self) -> bytes:
        if self.tls_required and not self.is_encrypted:
            raise self._refused()
        return super()._connect_command()

    def _refused(self) -> TlsRefused:
        server = self._current_server
        where = "the server" if server is None else f"{server.uri.hostname}:{server.uri.port}"
        return TlsRefused(f"nats: {where} offers no TLS, and TLS is asked for: nothing was sent")


async def connect(**options: Any) -> TlsClient:
    """Connect; the options are those of `nats.connect`.

    :raises nats.errors.Error: it could not connect.
    """
    client = TlsClient()
    await client.connect(**options)
    return client
