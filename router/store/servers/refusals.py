"""What a refusal of Redis means, and what to do about it."""

import re

from redis.exceptions import AskError, AuthenticationError, ClusterCrossSlotError, NoPermissionError, ResponseError

from router.errors import StoreDamaged, StoreError, StoreForbidden

# Words of servers and providers for a command that they do not offer. A reply that begins with a code (OOM, MISCONF)
# is about the state of the server.
_CODE = re.compile(r"[A-Z]{3,} ")
_NOT_OFFERED = re.compile(r"unknown (sub)?command|(un|not )supported|not (allowed|available)|disabled", re.IGNORECASE)

_IN_A_SCRIPT = "ACL failure in script"

USE_CLUSTER = "this server is a node of a Redis Cluster: set ROUTER_REDIS_CLUSTER=true"
_LOGIN = "check ROUTER_REDIS_USERNAME and ROUTER_REDIS_PASSWORD, or the login in ROUTER_REDIS_URL"
USE_SINGLE = "this server is not in Cluster mode: set ROUTER_REDIS_CLUSTER=false"


def unavailable(fault: Exception) -> str:
    """Why Redis cannot be used now; a refused login names the settings to look at."""
    if isinstance(fault, AuthenticationError):
        return f"Redis refuses the login: {str(fault).rstrip('.')}: {_LOGIN}"
    return f"Redis: {fault}"


def met_a_cluster(fault: ResponseError) -> bool:
    """Whether a client for one server talks to a node of a Cluster."""
    return isinstance(fault, (AskError, ClusterCrossSlotError))


def is_forbidden(fault: ResponseError) -> bool:
    """Whether the server does not offer the command to this user: by ACL, renamed, or unknown."""
    text = _words(fault)
    if isinstance(fault, NoPermissionError) or text.startswith(_IN_A_SCRIPT):
        return True
    return type(fault) is ResponseError and _CODE.match(text) is None and _NOT_OFFERED.search(text) is not None


def refused(command: str, fault: ResponseError) -> StoreError:
    """The error for a command that Redis refused."""
    text = _words(fault)
    if is_forbidden(fault):
        # The text repeats the arguments of an unknown command; they may be a tenant's data.
        return StoreForbidden(f"Redis does not allow {command}: {text.split(', with args')[0]}")
    return (StoreDamaged if "WRONGTYPE" in text else StoreError)(f"Redis refused {command}: {text}")


def _words(fault: ResponseError) -> str:
    """The server's words, without what redis-py puts before them in a pipeline."""
    return str(fault).rpartition(" of pipeline caused error: ")[2]
