"""The functions of nats-py that the fast path (`bus.client.fast`, `parser`, `incoming`) and `router.nats_tls` rely on,
and the check of them at start.

nats-py promises nothing about its private names. So each function that the fast path replaces, calls, or builds on is
listed here with a digest of its source. The attributes that it uses are created in the listed `__init__` functions. Of
asyncio's private names it uses one, `StreamReader._buffer`.

- The version of the digests runs without a check.
- Another version runs if the source of each listed function is the same; otherwise `check` refuses it.
- `tests/bus/client/test_nats_py.py` fails when these two use a name of nats-py that is not listed, and when the
  installed nats-py has different source. Then compare the new source with them and update the digest.
"""

import asyncio
import hashlib
import inspect
import platform
from collections.abc import Iterator

from nats.aio.client import Client, __version__
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from router.errors import StartupRefused

KNOWN_VERSION = "2.16.0"
"""The version of nats-py that the digests belong to."""

DIGESTS: dict[type, dict[str, str]] = {
    Client: {
        "__init__": "5e75592e0d54",
        "connect": "a333807745c3",
        "close": "e3c4d17ec4cc",
        "_close": "9a92d3aca1b2",
        "subscribe": "30bf1c4cc1c9",
        "_remove_sub": "0791939ce078",
        "_send_subscribe": "d265ae9f821a",
        "_send_unsubscribe": "457a4657eeb1",
        "_send_command": "ed57e8e86389",
        "_flush_pending": "317c8d7ef54b",
        "_flusher": "43957ffb357d",
        "flush": "b410d7515bcc",
        "rtt": "607dad8f801a",
        "_read_loop": "b44b9401f436",
        "_ping_interval": "e681a6d18db6",
        "_send_ping": "d57b2f820443",
        "_process_ping": "7dfc2df74827",
        "_process_pong": "ee4c4d01a16d",
        "_process_info": "ecca7bb93130",
        "_process_msg": "6cff75947e97",
        "_process_err": "ceb70f44e38f",
        "_process_op_err": "d4257cb1203c",
        "_attempt_reconnect": "2bbc96e0f2f7",
        "_select_next_server": "c278559f8a14",
        "_process_connect_init": "e1ed2da075c8",
        "_connect_command": "1999c01f55c9",
        "_connect_to_server": "1356d992325f",
        "is_closed": "75cd65940e7b",
        "is_connected": "7cb04f5ceb16",
        "is_reconnecting": "c894b77fbf59",
    },
    Parser: {
        "__init__": "2c12c26af28f",
        "reset": "0f304f3f8691",
        "parse": "7d6165f1766c",
    },
    Subscription: {
        "__init__": "2802b4167b60",
    },
    TcpTransport: {
        "__init__": "b1c1dae433b8",
        "connect": "96c97f9bad05",
        "connect_tls": "6688ffffefa2",
        "write": "70127868971b",
        "writelines": "bef96469be62",
        "drain": "899995c7bc2e",
        "close": "0a10cb8839d1",
    },
}
"""Per class and function: the start of the SHA-256 of its source."""


def digest(owner: type, name: str) -> str:
    """Return the start of the SHA-256 of the source of a function or property; "" without such a name or source."""
    member = vars(owner).get(name)
    function = member.fget if isinstance(member, property) else member
    try:
        source = inspect.getsource(function)  # type: ignore[arg-type]  # None raises TypeError too
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def changed() -> Iterator[str]:
    """Yield the listed functions that the installed nats-py lacks or has with different source."""
    for owner, functions in DIGESTS.items():
        for name, expected in functions.items():
            if digest(owner, name) != expected:
                yield f"{owner.__name__}.{name}"


def check(version: str = __version__) -> None:
    """Compare the installed nats-py with the known one; call it in a running event loop.

    :raises StartupRefused: a function that the fast path relies on is missing or differs, or Python does not fit.
    """
    if not isinstance(getattr(asyncio.StreamReader(), "_buffer", None), bytearray):
        raise StartupRefused(
            f"Python {platform.python_version()} does not fit this release: asyncio.StreamReader has no _buffer, and "
            "router.bus.client.fast relies on it; use a version that pyproject.toml names"
        )
    if version == KNOWN_VERSION:
        return
    if names := list(changed()):
        raise StartupRefused(
            f"nats-py {version} does not fit this release: {', '.join(names)} differ from {KNOWN_VERSION}, "
            f"and router.bus.client.fast relies on them; install nats-py=={KNOWN_VERSION}"
        )
