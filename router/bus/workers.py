"""Subscriptions to heartbeats and dead letters of workers, over core NATS."""

from collections.abc import Callable, Mapping

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.bus.client.subscriptions import Subscription
from router.wire import subjects

Listener = Callable[[bytes, Mapping[str, str]], None]
"""`listener(data, headers)` is called by the event loop: it must be fast and must not block."""


async def hear_heartbeats(bus: Bus, listener: Listener) -> Subscription:
    """Subscribe to heartbeats: every pod gets every one."""
    return await bus.subscribe(subjects.HEARTBEAT, _direct(listener))


async def hear_dead_letters(bus: Bus, listener: Listener) -> Subscription:
    """Subscribe to dead letters: one pod gets each, so that it is counted once."""
    return await bus.subscribe(subjects.WORKER_DEAD_LETTER, _direct(listener), queue="router")


def _direct(listener: Listener) -> Callable[[bytes, bytes, bytes, bytes | None], None]:
    def on_message(_subject: bytes, _reply: bytes, data: bytes, raw: bytes | None) -> None:
        listener(data, wire.decode(raw) if raw is not None else {})

    return on_message
