"""What can go wrong on the bus, in this package's words.

BusError
├── NoRespondersError   nobody listens on the subject
└── BusTimeoutError     no answer in time
"""

import asyncio
import contextlib
from collections.abc import Iterator

import nats.errors

from router.errors import BusError


class NoRespondersError(BusError):
    """Nobody listens on the subject; for a JetStream subject: no stream is there."""


class BusTimeoutError(BusError):
    """No answer in time; whether the request was seen is unknown."""


@contextlib.contextmanager
def translated(subject: str) -> Iterator[None]:
    """Raise nats-py's errors as ours; `subject` names what was asked.

    nats-py waits by `wait_for`, which before Python 3.12 loses a cancellation that comes with the answer: it is raised
    here, or who cancels a loop of ours and waits for its end would wait for ever.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        yield
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
    except nats.errors.NoRespondersError as error:
        raise NoRespondersError(f"nobody answers on {subject}") from error
    except (nats.errors.TimeoutError, nats.errors.FlushTimeoutError, TimeoutError) as error:
        raise BusTimeoutError(f"no answer on {subject} in time") from error
    except (nats.errors.Error, OSError) as error:
        raise BusError(f"{subject}: {error}") from error
