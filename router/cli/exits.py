"""Exit codes, and what an exception means to the user: which code, in which words, with which fix."""

from enum import IntEnum

from router.errors import BusError, InvalidInput, PodAway, QuotaExceeded, RevisionConflict, StartupRefused, StoreError


class Exit(IntEnum):
    """Exit codes of the command `router`."""

    OK = 0
    NEGATIVE = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERNAL = 4
    INTERRUPTED = 130


def exit_code_of(error: Exception) -> tuple[Exit, str]:
    """The exit code of a fault and the words for it; InvalidInput shows every problem on a line of its own."""
    match error:
        case InvalidInput(problems=problems):
            return Exit.USAGE, "\n".join(f"error: {p}" for p in problems)
        case StartupRefused():
            return Exit.USAGE, f"error: {error}"
        case RevisionConflict() | QuotaExceeded():
            return Exit.NEGATIVE, f"refused: {error}"
        case StoreError():
            return (
                Exit.UNREACHABLE,
                f"error: {str(error).rstrip('.')} (is Redis there? name it with --redis or ROUTER_REDIS_URL)",
            )
        case BusError():
            return (
                Exit.UNREACHABLE,
                f"error: {error} (is a fleet there? name its NATS with --nats or ROUTER_NATS_URL)",
            )
        case PodAway():
            return Exit.UNREACHABLE, f"error: {error} (name a running pod with --pod)"
        case _:
            return Exit.INTERNAL, f"internal error: {type(error).__name__}: {error}"
