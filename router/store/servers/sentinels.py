"""Redis Sentinel: which server is the primary, and the client that follows it.

Every sentinel is asked at once. As soon as most have answered, the answer with the newest configuration counts, so a
sentinel that comes back from a partition is outvoted. If no sentinel answers, the last primary stays. A pod asks every
second, because a primary that only the sentinels have lost keeps its connections open.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from router.errors import StoreError, StoreForbidden, StoreUnavailable
from router.store.servers.nodes import Address, Client
from router.store.servers.options import Access, Sentinel, connection_factory, connection_pool
from router.telemetry import Event

log = logging.getLogger(__name__)

_NO_SUCH = "No such master"


class View(Struct, frozen=True):
    """The answer of one sentinel about the primary; `epoch` grows with each failover."""

    address: tuple[str, int]
    epoch: int
    flags: frozenset[str]
    replicas: int
    sentinels: int
    quorum: int


class Sentinels:
    """The sentinels of one primary. Connections are reused. A frozen sentinel delays a call by at most `timeout_s`."""

    def __init__(self, sentinel: Sentinel, *, timeout_s: float = 1.0) -> None:
        self.options = sentinel
        self._clients = {
            address: Redis.from_pool(connection_pool(sentinel.url(address), sentinel.access, timeout_s=timeout_s))
            for address in sentinel.addresses
        }

    async def primary(self) -> tuple[str, int]:
        """The address of the primary.

        :raises StoreUnavailable: no sentinel answered.
        :raises StoreError: those that answered do not know the primary, or refuse this user.
        """
        asked = [asyncio.ensure_future(self.view(address)) for address in self._clients]
        views: list[View] = []
        faults: list[StoreError] = []
        try:
            for answered in asyncio.as_completed(asked):
                try:
                    views.append(await answered)
                except StoreError as fault:
                    faults.append(fault)
                if len(views) > len(asked) // 2:
                    break
        finally:
            # A cancelled call would leave its reply on the connection.
            for call in asked:
                call.add_done_callback(_ignore)
        if views:
            return max(views, key=lambda view: view.epoch).address
        kind = StoreUnavailable if all(isinstance(f, StoreUnavailable) for f in faults) else StoreError
        raise kind(f"no sentinel names the primary {self.options.master}: {'; '.join(sorted(map(str, faults)))}")

    async def view(self, address: tuple[str, int]) -> View:
        """Ask one sentinel for the primary.

        :raises StoreUnavailable: it did not answer.
        :raises StoreError: it does not know the primary, or refuses this user.
        """
        return _view(_pairs(await self.ask(address, "MASTER", self.options.master)))

    async def ask(self, address: tuple[str, int], *words: str) -> object:
        """The reply of one sentinel to SENTINEL with these words.

        :raises StoreUnavailable: it did not answer.
        :raises StoreError: it refused.
        """
        where = f"sentinel {address[0]}:{address[1]}"
        try:
            return await self._clients[address].execute_command("SENTINEL", *words)  # type: ignore[no-untyped-call]
        except ResponseError as refusal:
            if _NO_SUCH in str(refusal):
                remedy = "set ROUTER_REDIS_SENTINEL_MASTER to the name in its configuration"
                raise StoreError(f"{where} knows no primary {self.options.master}: {remedy}") from refusal
            raise StoreError(f"{where}: {refusal}") from refusal
        except (RedisError, OSError) as fault:
            raise StoreUnavailable(f"{where}: {fault}") from fault

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()


class _NotOpen:
    """Stands for the client until the sentinels have named the primary."""

    def __getattr__(self, _: str) -> NoReturn:
        raise StoreUnavailable("Redis: the sentinels have not named the primary yet")

    async def aclose(self) -> None:
        """Do nothing: no connection is open."""


class SentinelPrimary(Client):
    """The primary that the sentinels name; `refresh` follows it. Host and port of `url` are ignored."""

    follows = True

    def __init__(self, url: str, access: Access, sentinel: Sentinel, *, timeout_s: float = 1.0) -> None:
        super().__init__(_NotOpen())
        self._url, self._access, self._timeout_s = url, access, timeout_s
        self.sentinels = Sentinels(sentinel, timeout_s=timeout_s)
        self._primary: tuple[str, int] | None = None

    async def open(self) -> None:
        await self.refresh()
        await self.call("PING")

    async def refresh(self) -> None:
        """Ask the sentinels, and use the primary that they name.

        :raises StoreError: none knows it, or the server that they name is no primary; the last one stays.
        """
        found = await self.sentinels.primary()
        if found == self._primary:
            return
        client = Redis.from_pool(connection_pool(self._url, self._access, timeout_s=self._timeout_s, node=found))
        try:
            await _must_be_primary(Client(client), found)
        except BaseException:
            await client.aclose()
            raise
        before, self._client = self._client, client
        if self._primary is not None:
            log.warning("the primary of Redis is now %s:%d", *found, extra={"event": Event.STORE_PRIMARY_MOVED})
        self._primary = found
        await before.aclose()

    async def renew(self, access: Access) -> None:
        if self._primary is not None:
            pool = connection_pool(self._url, access, timeout_s=self._timeout_s, node=self._primary)
            fresh = Redis.from_pool(pool)
            await self._replace(fresh, fresh.ping)
        self._access = access

    async def renew_sentinels(self, sentinel: Sentinel) -> None:
        """Ask the sentinels with these credentials and TLS files.

        :raises StoreError: no sentinel answers to them; the old ones stay in use.
        """
        fresh = Sentinels(sentinel, timeout_s=self._timeout_s)
        try:
            await fresh.primary()
        except BaseException:
            await fresh.close()
            raise
        before, self.sentinels = self.sentinels, fresh
        await before.close()

    async def _demoted(self) -> None:
        try:
            await self.refresh()
        except StoreError as fault:
            log.debug("a replica refused a write, and the sentinels name no other server: %s", fault)

    def address_of(self, tag: bytes) -> Address:
        if self._primary is None:
            raise StoreUnavailable("Redis: the sentinels have not named the primary yet")
        return self._primary

    def connections(self, address: Address) -> Callable[[], AbstractConnection]:
        return connection_factory(self._url, self._access, node=address)

    async def each(self, *command: bytes | str | int) -> list[Any]:
        return [await self.call(*command)]

    async def close(self) -> None:
        await super().close()
        await self.sentinels.close()


async def _must_be_primary(client: Client, address: tuple[str, int]) -> None:
    """Check that the server is a primary: a sentinel that missed the last failover names a server that is a replica
    now.
    """
    try:
        facts = await client.call("INFO", "replication")
    except StoreForbidden:
        return  # the first write will show it
    if facts.get("role", "master") != "master":
        raise StoreUnavailable(f"Redis: {address[0]}:{address[1]}, which the sentinels name, is a replica")


def _ignore(call: "asyncio.Future[View]") -> None:
    if not call.cancelled():
        call.exception()


def _pairs(reply: object) -> dict[str, str]:
    items = reply if isinstance(reply, list) else []
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in items]
    return dict(zip(words[::2], words[1::2], strict=False))


def _view(facts: Mapping[str, str]) -> View:
    try:
        return View(
            address=(facts["ip"], int(facts["port"])),
            epoch=int(facts["config-epoch"]),
            flags=frozenset(facts["flags"].split(",")),
            replicas=int(facts["num-slaves"]),
            sentinels=int(facts["num-other-sentinels"]) + 1,
            quorum=int(facts["quorum"]),
        )
    except (KeyError, ValueError) as error:
        raise StoreError(f"a sentinel's reply is not understood: {error!r}") from error
