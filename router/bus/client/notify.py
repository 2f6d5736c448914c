"""Calls listeners so that an error in one affects neither the others nor the caller."""

import logging
from collections.abc import Callable
from typing import Any

from router.telemetry.events import Event

log = logging.getLogger(__name__)


def notify(callbacks: list[Callable[..., None]], *arguments: Any) -> None:
    """Call each listener; an error is logged."""
    for callback in list(callbacks):
        try:
            callback(*arguments)
        except Exception:  # raised into nats-py, it would end the reconnects
            log.exception("listener of the bus failed", extra={"event": Event.BUG})
