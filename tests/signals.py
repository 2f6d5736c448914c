"""The signals that the tests' child processes start with."""

import signal
from types import FrameType


def default_signals_for_children() -> None:
    """Start every child with the default SIGINT, also where this process was started with it ignored (`make test &`).

    A child inherits an ignored signal, but never a handler. So a handler that does nothing keeps this process as it is.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, _ignore)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """As SIG_IGN, for this process only."""
