"""The NATS connection of one command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from router.cli.shared.target import bus_options

if TYPE_CHECKING:
    from router.bus.client.connection import Bus
    from router.settings import Settings

CONNECT_S = 2.0


@asynccontextmanager
async def open_bus(settings: "Settings") -> "AsyncIterator[Bus]":
    """The fleet's NATS.

    :raises BusError: it did not answer.
    """
    from router.bus.client.connection import Bus
    from router.errors import BusError
    from router.redaction import address

    bus = Bus(bus_options(settings, "router-cli"))
    faults: list[Exception] = []
    bus.on_error.append(faults.append)
    await bus.start()
    try:
        if not await bus.wait_connected(CONNECT_S):
            why = f": {faults[-1]}" if faults else ""
            raise BusError(f"{', '.join(map(address, settings.nats_url))}: no connection within {CONNECT_S:g} s{why}")
        yield bus
    finally:
        await bus.close()
