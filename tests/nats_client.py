"""A NATS client for tests: whoever is not the router."""

from typing import Any

from nats.aio.client import DEFAULT_FLUSH_TIMEOUT, Client


class FlushingClient(Client):
    """A client whose flush covers what was sent before it. nats-py writes the PING before the commands that wait."""

    async def flush(self, timeout: int = DEFAULT_FLUSH_TIMEOUT) -> None:  # noqa: ASYNC109 - nats-py's signature
        """Return when the server has read everything: a second PING comes behind what waited."""
        await super().flush(timeout)
        await super().flush(timeout)


async def connect(url: str, **options: Any) -> FlushingClient:
    """As `nats.connect`."""
    client = FlushingClient()
    await client.connect(url, **options)
    return client
