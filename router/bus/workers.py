"""Subscriptions to heartbeats and dead letters of workers, over core NATS."""

from collections.abc import Callable, Mapping

from router.bus import headers as wire
from router.bus.connection import Bus, Subscription
from router.wire import subjects

Listener = Callable[[bytes, Mapping[str, str]], None]
"""`listener(data, headers)` runs in the read loop: it must be fast and must not block."""


async def listen(bus: Bus, on_heartbeat: Listener, on_dead_letter: Listener) -> list[Subscription]:
    """Subscribe: every pod gets every heartbeat; one pod gets each dead letter, so that it is counted once."""
    return [
        await bus.subscribe(subjects.HEARTBEAT, _direct(on_heartbeat)),
        await bus.subscribe(subjects.WORKER_DEAD_LETTER, _direct(on_dead_letter), queue="router"),
    ]


def _direct(listener: Listener) -> Callable[[bytes, bytes, bytes, bytes | None], None]:
    def on_message(_subject: bytes, _reply: bytes, data: bytes, raw: bytes | None) -> None:
        listener(data, wire.decode(raw) if raw is not None else {})

    return on_message
