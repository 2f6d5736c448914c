"""Ctrl-C reaches the fleet, and make waits for it.

A terminal sends it to its whole foreground group. `make run` is led by make, which then ends by the signal (130 in the
shell), however cleanly the fleet stops. So where another process leads our group, the fleet takes the terminal in a
group of its own and gives it back at the end. Then make waits, and ends with the fleet's own exit code.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TERMINAL = 0


@contextmanager
def own_terminal() -> Iterator[None]:
    """Within the block, Ctrl-C reaches this process, but not the processes that wait for it.

    Does nothing if standard input is not a terminal, another group has it, or this process leads its group.
    """
    before = os.getpgrp()
    if os.getpid() == before or not _has_terminal(before):
        yield
        return
    # SIGTTOU would stop a background process that takes the terminal. Ctrl-Z would stop this process, but not those
    # that wait for it.
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTTOU, signal.SIGTSTP)}
    os.setpgid(0, 0)
    os.tcsetpgrp(_TERMINAL, os.getpgrp())
    try:
        yield
    finally:
        with suppress(OSError):  # the terminal or that group no longer exists
            os.tcsetpgrp(_TERMINAL, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _has_terminal(group: int) -> bool:
    try:
        return os.tcgetpgrp(_TERMINAL) == group
    except OSError:
        return False
