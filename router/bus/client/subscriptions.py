"""The subscriptions of the bus. They outlive its clients: each new client gets all of them."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from router.bus.client.fast import FastClient
from router.bus.client.faults import translated
from router.bus.client.parser import Direct
from router.bus.client.permissions import Permissions
from router.errors import BusError, PermissionRefused

_FLUSH_S = 5.0


class Subscription:
    """A direct subscription of a `Bus`; it survives reconnects and the replacement of the client.

    `sid`: its id on the current client; None: it is set up with the next connection.
    """

    def __init__(
        self, subject: str, queue: str, direct: Direct, end: Callable[["Subscription"], Awaitable[None]]
    ) -> None:
        self.subject, self.queue, self.direct = subject, queue, direct
        self.sid: int | None = None
        self._end = end

    async def close(self) -> None:
        """Unsubscribe, after the messages that the server already sent are handled. A lost server is no error."""
        await self._end(self)


class Subscriptions:
    """All subscriptions of one bus. `end` closes one of them on the client that the bus then has."""

    def __init__(self, permissions: Permissions, end: Callable[[Subscription], Awaitable[None]]) -> None:
        self._permissions = permissions
        self._end = end
        self._all: dict[int, Subscription] = {}

    async def subscribe(
        self, client: FastClient | None, subject: str, direct: Direct, *, queue: str, optional: bool
    ) -> Subscription:
        """See `Bus.subscribe`. `client` None: the first connection sets the subscription up."""
        subscription = Subscription(subject, queue, direct, self._end)
        self._all[id(subscription)] = subscription
        if client is not None:
            with self._permissions.subscribing(subject) as refusal:
                with suppress(BusError), translated(subject):  # a reconnect sets up the subscription
                    subscription.sid = await client.subscribe_direct(subject, direct, queue=queue)
                    if client.is_connected:
                        await client.rtt(_FLUSH_S)  # type: ignore[arg-type]  # seconds; nats-py annotates int
                if (refused := refusal()) is not None and optional:
                    self._permissions.lose(subject, refused)
                elif refused is not None:
                    await self._end(subscription)
                    raise PermissionRefused(str(refused))
        return subscription

    async def unsubscribe(self, client: FastClient | None, subscription: Subscription) -> None:
        """End a subscription; see `Subscription.close`."""
        self._all.pop(id(subscription), None)
        if client is not None and subscription.sid is not None:
            with suppress(BusError), translated(subscription.subject):  # no connection: no more messages
                await client.unsubscribe_direct(subscription.sid)
        subscription.sid = None

    async def adopt(self, client: FastClient) -> None:
        """Set up all subscriptions on a client that replaces a lost one."""
        for s in self._all.values():
            s.sid = None
        while missing := [s for s in self._all.values() if s.sid is None]:
            for s in missing:
                s.sid = await client.subscribe_direct(s.subject, s.direct, queue=s.queue)

    async def subscribe_all(self, client: FastClient) -> dict[int, int]:
        """Set up all subscriptions on a client that is not used yet; return their ids on it, for `take_over`."""
        sids: dict[int, int] = {}
        while missing := [s for key, s in self._all.items() if key not in sids]:
            for s in missing:
                sids[id(s)] = await client.subscribe_direct(s.subject, s.direct, queue=s.queue)
        return sids

    def take_over(self, sids: dict[int, int]) -> list[int]:
        """Use the ids of the new client; return those on the old one."""
        old = [s.sid for s in self._all.values() if s.sid is not None]
        for s in self._all.values():
            s.sid = sids.get(id(s))
        return old
