"""The errors of the bus, and their translation from those of nats-py.

BusError
├── NoRespondersError   the subject has no subscriber
├── PermissionRefused   the user may not publish or subscribe to the subject (`router.errors`)
└── BusTimeoutError     no reply in time
"""

import asyncio
import contextlib
from collections.abc import Iterator

import nats.errors

from router.errors import BusError


class NoRespondersError(BusError):
    """The subject has no subscriber; on a JetStream subject: no stream covers it."""


class BusTimeoutError(BusError):
    """No reply in time; the request may have been handled."""


@contextlib.contextmanager
def translated(subject: str) -> Iterator[None]:
    """Translate errors of nats-py; `subject` appears in the messages.

    nats-py uses `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes with the reply. It is
    raised here: otherwise code that cancels a task and waits for its end would wait forever.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        yield
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
    except nats.errors.NoRespondersError as error:
        raise NoRespondersError(f"no subscriber on {subject}") from error
    except (nats.errors.TimeoutError, nats.errors.FlushTimeoutError, TimeoutError) as error:
        raise BusTimeoutError(f"no reply on {subject} in time") from error
    except (nats.errors.Error, OSError) as error:
        raise BusError(f"{subject}: {error}") from error
