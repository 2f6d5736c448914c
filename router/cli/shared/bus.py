"""The NATS connection of one command, and questions to the fleet."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from router.cli.shared.target import bus_options

if TYPE_CHECKING:
    from router.bus.client.connection import Bus
    from router.bus.client.requests import Answer
    from router.settings import Settings

CONNECT_S = 2.0


@asynccontextmanager
async def open_bus(settings: "Settings") -> "AsyncIterator[Bus]":
    """The fleet's NATS.

    :raises LoginRefused: it does not accept the login.
    :raises BusError: it did not answer.
    """
    from router.bus.client.connection import Bus
    from router.errors import BusError, LoginRefused
    from router.redaction import address

    bus = Bus(bus_options(settings, "router-cli"))
    faults: list[Exception] = []
    bus.on_error.append(faults.append)
    await bus.start()
    try:
        if not await bus.wait_connected(CONNECT_S):
            servers = ", ".join(map(address, settings.nats_url))
            why = str(faults[-1]) if faults else ""
            if "authorization" in why.lower() or "authentication" in why.lower():
                raise LoginRefused(f"{servers}: {why}")
            raise BusError(f"{servers}: no connection within {CONNECT_S:g} s{why and f': {why}'}")
        yield bus
    finally:
        await bus.close()


async def ask_for_tenant(
    bus: "Bus",
    subject: str,
    tenant: str,
    payload: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
) -> "Answer":
    """Ask on the subject that is bound to the tenant, or on the open one if that is not permitted or not served.

    :raises PermissionRefused: neither is permitted; the message names both.
    :raises BusError: the fleet did not answer in time.
    """
    from router.bus.client.faults import NoRespondersError
    from router.errors import PermissionRefused
    from router.wire.subjects import is_literal

    bound, refused = f"{subject}.{tenant}", None
    sent = None if headers is None else dict(headers)
    if is_literal(bound):
        try:
            return await bus.request(bound, payload, sent, timeout_s=timeout_s)
        except PermissionRefused as error:
            refused = error
        except NoRespondersError:
            pass
    try:
        return await bus.request(subject, payload, sent, timeout_s=timeout_s)
    except PermissionRefused as error:
        if refused is None or "subscribe" in str(error):
            raise
        raise PermissionRefused(f"{refused}, nor to {subject}") from error
