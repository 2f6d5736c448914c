"""Runs a command that must not outlive the process that asked for it: `python -m router.local.guard PARENT -- argv…`.

On Linux the kernel does it (PR_SET_PDEATHSIG, which an exec keeps): this process becomes the command, so its pid is the
command's, and SIGKILL reaches it whatever way the parent dies. Elsewhere this process stays, passes signals on, and
kills the command when the parent is gone. Only the standard library: it is started once per server.
"""

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.5


def main(arguments: list[str]) -> int:
    """Become (Linux) or watch over (elsewhere) the command; 127 when it cannot be started."""
    parent, separator, *command = arguments
    if separator != "--" or not command:
        sys.stderr.write("usage: python -m router.local.guard PARENT_PID -- COMMAND…\n")
        return 2
    try:
        if platform.system() == "Linux":
            return _become(int(parent), command)
        return watch(int(parent), command)
    except OSError as e:
        sys.stderr.write(f"{command[0]} cannot be started: {e}\n")
        return 127


def _become(parent: int, command: list[str]) -> int:
    """Exec the command; returns only when the parent is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() == parent:  # the parent may have died before the line above, and then no signal would come
        os.execvp(command[0], command)  # noqa: S606 - the command line is the fleet's own
    return 1


def watch(parent: int, command: list[str]) -> int:
    """Run the command as a child; returns its exit code. It is killed when the parent is gone."""
    child = subprocess.Popen(command)  # noqa: S603 - the command line is the fleet's own
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _: child.send_signal(signum))
    while (code := child.poll()) is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(_POLL_S)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
