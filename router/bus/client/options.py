"""Connection options: addresses, identity and limits, checked and converted to keywords of nats-py."""

import importlib.util
import random
import ssl

from msgspec import Struct

from router.errors import InvalidInput, Problem
from router.redaction import address


class BusOptions(Struct, frozen=True):
    """The options of the connection to NATS. Set at most one login: user and password, token, creds, or nkey seed."""

    urls: tuple[str, ...]
    name: str = "router"
    user: str | None = None
    password: str | None = None
    token: str | None = None
    creds: str | None = None
    """Path of a credentials file; needs the package `nkeys`."""
    nkey_seed: str | None = None
    """Path of a file with the seed of an nkey; needs the package `nkeys`."""
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_hostname: str | None = None
    tls_first: bool = False
    """Start TLS before the server's first line; the server must have `handshake_first`."""
    inbox_prefix: str = "_INBOX"
    """First tokens of this client's own inboxes; the user must be allowed to subscribe to `<prefix>.>`."""
    js_prefix: str = "$JS.API"
    """First tokens of JetStream's API subjects; see `js_prefix_of`."""
    connect_timeout_s: float = 2.0
    ping_interval_s: float = 5.0
    """A connection that misses two pings is replaced, so a dead host is noticed within three intervals."""
    max_unsent_bytes: int = 64 << 20
    """The bytes that may wait for a slow or unavailable server; more are refused and counted."""

    def __repr__(self) -> str:
        """The options without the login: a traceback may contain this text."""
        return f"BusOptions(urls={[address(url) for url in self.urls]}, name={self.name!r})"


def js_prefix_of(domain: str | None, prefix: str | None) -> str:
    """The subjects of JetStream's API: those of the account, of a domain behind a leaf node, or of an import."""
    if prefix is not None:
        return prefix
    return "$JS.API" if domain is None else f"$JS.{domain}.API"


def connect_arguments(options: BusOptions) -> dict[str, object]:
    """Check the options and convert them to keywords of `nats.connect`.

    :raises InvalidInput: the options are wrong; it lists every problem.
    """
    problems: list[Problem] = []
    if not options.urls:
        problems.append(Problem("urls", message="no NATS server is set", hint="set one such as nats://host:4222"))
    problems.extend(
        Problem(
            "urls",
            message=f"{address(url)} is not the address of a NATS server",
            hint="set nats://host:4222 or tls://host:4222",
        )
        for url in options.urls
        if not url.startswith(("nats://", "tls://"))
    )
    if (options.user is None) != (options.password is None):
        problems.append(Problem("user", message="user and password must be set together", hint="set both or neither"))
    logins = (options.user, options.token, options.creds, options.nkey_seed)
    if sum(login is not None for login in logins) > 1:
        hint = "set one of: user and password, token, creds, nkey seed"
        problems.append(Problem("user", message="more than one login is set", hint=hint))
    needs_nkeys = options.creds is not None or options.nkey_seed is not None
    if needs_nkeys and importlib.util.find_spec("nkeys") is None:
        problems.append(
            Problem("creds", message="credentials and seeds need the package nkeys", hint="install nats-py[nkeys]")
        )
    context = None
    try:
        context = _tls(options)
    except (OSError, ssl.SSLError) as error:
        problems.append(Problem("tls", message=f"cannot be loaded: {error}", hint="check tls_ca, tls_cert and tls_key"))
    if problems:
        raise InvalidInput(problems)
    return {
        "name": options.name,
        "user": options.user,
        "password": options.password,
        "token": options.token,
        "user_credentials": options.creds,
        "nkeys_seed": options.nkey_seed,
        "tls": context,
        "tls_hostname": options.tls_hostname,
        "tls_handshake_first": options.tls_first,
        "inbox_prefix": options.inbox_prefix,
        "connect_timeout": options.connect_timeout_s,
        "ping_interval": options.ping_interval_s,
        "max_outstanding_pings": 2,
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        # so that the pods of a fleet do not reconnect all at once
        "reconnect_time_wait": random.uniform(0.2, 0.5),  # noqa: S311 - spread, not secrecy
    }


def needs_tls(options: BusOptions) -> bool:
    """Whether a connection without TLS must not be used: any TLS option or `tls://` address asks for it."""
    given = (options.tls_ca, options.tls_cert, options.tls_key, options.tls_hostname, options.tls_first)
    return any(given) or any(url.startswith("tls://") for url in options.urls)


def _tls(options: BusOptions) -> ssl.SSLContext | None:
    if not needs_tls(options):
        return None
    context = ssl.create_default_context(cafile=options.tls_ca)
    if options.tls_cert is not None:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    return context
