"""`python -m bench.child CPUS COMMAND…`: becomes COMMAND, on these CPUs, and dies with whoever started it.

CPUS is a comma list, or `any`. A bench that is killed leaves no server behind.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Pin, tie to the parent, exec."""
    cpus, *command = sys.argv[1:]
    if cpus != "any":
        os.sched_setaffinity(0, {int(c) for c in cpus.split(",")})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(command[0], command)  # noqa: S606 (the command is this bench's own)


if __name__ == "__main__":
    main()
