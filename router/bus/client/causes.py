"""Why there is no connection to NATS: the kind of cause first, then the words of the server or system, then what to do.

| kind | such as |
|---|---|
| certificate | signed by another authority, expired, for another host; or the server refuses the client's |
| authorization | wrong password, token or credentials; or no login at all |
| unreachable | nobody listens, the host is unknown, no answer in time |
| protocol | what answers is no NATS server |
"""

import asyncio
import re
import socket
import ssl

import nats.errors

from router.bus.client.options import BusOptions

_EXPIRED, _NOT_YET_VALID, _OTHER_HOST, _OTHER_ADDRESS = 10, 9, 62, 64  # X509_V_ERR_… of OpenSSL
_LOGIN_REFUSED = re.compile(r"authorization|authentication|revoked|nkeys? not supported", re.IGNORECASE).search
_NO_NATS = re.compile(r"INFO message|info message|protocol", re.IGNORECASE).search
_CLOSED = (ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError, nats.errors.UnexpectedEOF)


def cause(error: Exception, options: BusOptions) -> str:
    """The cause in words; text without a kind is passed on as it is."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}: {_certificate_hint(error.verify_code)}"
    if isinstance(error, ssl.SSLError):
        return _handshake(error)
    if isinstance(error, socket.gaierror):
        return f"unreachable: {error.strerror}: check the host in ROUTER_NATS_URL"
    if isinstance(error, TimeoutError):
        return f"unreachable: no answer within {options.connect_timeout_s:g} s: check ROUTER_NATS_URL and the network"
    if isinstance(error, OSError):
        words = (error.strerror or str(error) or type(error).__name__).replace(
            "Connect call failed", "cannot connect to"
        )
        return f"unreachable: {words}"
    words = str(error) or repr(error)
    if isinstance(error, nats.errors.Error):
        said = words.removeprefix("nats: ").strip("'")
        if _LOGIN_REFUSED(said):
            return f"authorization: the server says {said!r}: {_login_hint(options)}"
        if _NO_NATS(said):
            return f"protocol: {said}: what answers is no NATS server; check ROUTER_NATS_URL"
    return words


def is_aftermath(error: Exception) -> bool:
    """Whether the error only says that the connection is closed. The error just before it is the cause."""
    return isinstance(error, _CLOSED)


def _certificate_hint(code: int) -> str:
    if code in (_EXPIRED, _NOT_YET_VALID):
        return "renew the server's certificate, or check the clocks"
    if code in (_OTHER_HOST, _OTHER_ADDRESS):
        return "use a host in ROUTER_NATS_URL that the server's certificate names"
    return "ROUTER_NATS_TLS_CA must hold the authority that signed the server's certificate"


def _handshake(error: ssl.SSLError) -> str:
    # asyncio makes errors without a reason
    words = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
    if "alert" in words:
        return f"certificate: the server says {words!r}: check ROUTER_NATS_TLS_CERT and ROUTER_NATS_TLS_KEY"
    return f"certificate: no TLS handshake: {words}"


def _login_hint(options: BusOptions) -> str:
    if options.user is not None:
        return f"check ROUTER_NATS_USER ({options.user}) and ROUTER_NATS_PASSWORD"
    if options.token is not None:
        return "check ROUTER_NATS_TOKEN"
    if options.creds is not None:
        return "check ROUTER_NATS_CREDS_FILE"
    if options.nkey_seed is not None:
        return "check ROUTER_NATS_NKEY_SEED_FILE"
    if any("@" in url for url in options.urls):
        return "check the login in ROUTER_NATS_URL"
    return (
        "no login is set: set ROUTER_NATS_USER and ROUTER_NATS_PASSWORD, ROUTER_NATS_TOKEN, ROUTER_NATS_CREDS_FILE "
        "or ROUTER_NATS_NKEY_SEED_FILE"
    )
