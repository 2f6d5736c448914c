"""Who asks: API keys, or anybody where ROUTER_API_AUTH is `open`.

A wrong key costs its sender a second before the answer, and at most 64 senders wait; further ones are refused at once
with 429. A valid key is never slowed down, whoever else shares its address.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from hmac import compare_digest

from router.domain.api_key import ANYBODY, ApiKey, Asker
from router.domain.decide.decision import Code, Refused
from router.edge.api.messages import Reply, refused
from router.wire.api_keys import digest_of, key_id

SLOW_S = 1.0
MAX_SLOWED = 64
_NO_DIGEST = bytes(32)
_UNKNOWN = Refused(
    Code.UNAUTHORIZED, "API key missing or unknown: send a valid one in the header `authorization: Bearer rk_…`"
)
_TOO_MANY = Refused(Code.RATE_LIMIT_EXCEEDED, "too many wrong API keys", {"retry_after_ms": 1000})


class ApiKeys:
    """The keys in use. `on_wrong` is called for each wrong key."""

    def __init__(self, on_wrong: Callable[[], None], *, slow_s: float = SLOW_S) -> None:
        self._keys: dict[str, ApiKey] = {}
        self._on_wrong = on_wrong
        self._slow_s = slow_s
        self._slowed = 0

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Accept these keys from now on, and no others."""
        self._keys = {key.id: key for key in keys}

    async def asker(self, headers: Mapping[str, str]) -> Asker | Reply:
        """Return who sends a request with these headers, or the refusal."""
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        key = headers.get("x-api-key") if not sent else sent.strip() if scheme.lower() == "bearer" else None
        if not key:
            return refused(_UNKNOWN)
        found = self._keys.get(key_id(key) or "")
        # Compared for an unknown id, too: the time says nothing about which ids there are.
        if compare_digest(digest_of(key), _NO_DIGEST if found is None else found.digest) and found is not None:
            return found.asker
        self._on_wrong()
        if self._slowed >= MAX_SLOWED:
            return refused(_TOO_MANY)
        self._slowed += 1
        try:
            await asyncio.sleep(self._slow_s)
        finally:
            self._slowed -= 1
        return refused(_UNKNOWN)


class Anybody:
    """Every sender may do everything; only programs may be senders.

    A web page that a developer opens can send requests to his machine. It can neither choose their content type freely
    nor their Host: so the type must be JSON, and Host an address, `localhost` or one of `hosts`.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)

    async def asker(self, headers: Mapping[str, str]) -> Asker | Reply:
        """Return the anonymous asker, or the refusal."""
        host = _without_port(headers.get("host", "")).lower()
        if host != "localhost" and host not in self._hosts and not _is_address(host):
            return refused(
                Refused(Code.UNAUTHORIZED, "this Host is not allowed: name it in ROUTER_API_HOSTS, or use an address")
            )
        return ANYBODY


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
