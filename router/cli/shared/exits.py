"""Exit codes, and the code, message and hint for each exception."""

from enum import IntEnum

from router.errors import (
    BusError,
    InvalidInput,
    LoginRefused,
    NotReplicated,
    PermissionRefused,
    PodUnavailable,
    QuotaExceeded,
    RevisionConflict,
    StartupRefused,
    StoreError,
    StoreForbidden,
    StoreLoginRefused,
)
from router.redaction import redacted


class Exit(IntEnum):
    """Exit codes of the command `router`."""

    OK = 0
    NEGATIVE = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERNAL = 4
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "done",
    Exit.NEGATIVE: "refused or a negative answer",
    Exit.USAGE: "wrong usage or input",
    Exit.UNREACHABLE: "a server cannot be reached",
    Exit.INTERNAL: "a fault of the program or the fleet",
    Exit.INTERRUPTED: "interrupted",
}

_START = "`router local` starts one here"
_LOGIN = "ROUTER_NATS_USER, _CREDS, _NKEY_SEED_FILE or _TOKEN, or from the URL in --nats or ROUTER_NATS_URL"


def exit_code_of(error: Exception) -> tuple[Exit, str]:
    """The exit code and the message of a fault, without secrets; `InvalidInput` has one line per problem."""
    code, message = _explained(error)
    return code, redacted(message)


def _explained(error: Exception) -> tuple[Exit, str]:
    match error:
        case InvalidInput(problems=problems):
            return Exit.USAGE, "\n".join(f"error: {p}" for p in problems)
        case StartupRefused():
            return Exit.USAGE, f"error: {error}"
        case RevisionConflict() | QuotaExceeded():
            return Exit.NEGATIVE, f"refused: {error}"
        case StoreForbidden():
            return Exit.USAGE, f"error: {error} (`router acl redis` prints the rights that this needs)"
        case StoreLoginRefused():
            login = "ROUTER_REDIS_USERNAME and _PASSWORD, or from the URL in --redis or ROUTER_REDIS_URL"
            return Exit.USAGE, f"error: {error} (the login comes from {login})"
        case NotReplicated():
            return Exit.UNREACHABLE, f"error: {error} (the change is in the primary: look at it before you repeat it)"
        case StoreError():
            hint = f"is Redis there? --redis or ROUTER_REDIS_URL names it; {_START}"
            return Exit.UNREACHABLE, f"error: {str(error).rstrip('.')} ({hint})"
        case PermissionRefused():
            hint = f"the user comes from {_LOGIN}; `router acl nats` prints the rights that each party needs"
            return Exit.USAGE, f"error: {error} ({hint})"
        case LoginRefused():
            return Exit.USAGE, f"error: {error} (the login comes from {_LOGIN})"
        case BusError():
            hint = f"is a fleet there? --nats or ROUTER_NATS_URL names it; {_START}"
            return Exit.UNREACHABLE, f"error: {error} ({hint})"
        case PodUnavailable():
            return Exit.UNREACHABLE, f"error: {error} (name a running pod with --pod)"
        case _:
            return Exit.INTERNAL, f"internal error: {type(error).__name__}: {error}"
