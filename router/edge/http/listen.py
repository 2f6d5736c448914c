"""The listening socket of the HTTP port, and the limit of open files."""

import logging
import resource
import socket

from router.telemetry import Event

log = logging.getLogger("router.http")

ANY = "::"
# A container serves all its interfaces.
_ANY_IPV4 = "0.0.0.0"  # noqa: S104  # nosec B104


def listening_socket(host: str, port: int, *, backlog: int) -> socket.socket:
    """Open a listening socket. `::` accepts IPv6 and IPv4; without IPv6 on this machine, 0.0.0.0 is used and logged.

    :raises OSError: the address cannot be bound.
    """
    try:
        return _listening(host, port, backlog=backlog)
    except OSError as fault:
        why = (fault.strerror or str(fault)).partition(" (while")[0].lower()
        raise OSError(fault.errno, f"cannot listen on {host} port {port}: {why}") from fault


def _listening(host: str, port: int, *, backlog: int) -> socket.socket:
    if host == ANY:
        # The socket's own IPV6_V6ONLY counts, whatever the system's default is.
        if socket.has_dualstack_ipv6():
            return socket.create_server((ANY, port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
        log.warning("no IPv6 on this machine: listening on %s", _ANY_IPV4, extra={"event": Event.HTTP_NO_IPV6})
        host = _ANY_IPV4
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server((str(address[0]), port), family=family, backlog=backlog)


def raise_open_files() -> int | None:
    """Raise the limit of open files to its hard bound; return the limit in force, None: unlimited."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as refused:  # the system may have a lower bound
            log.info("limit of open files stays at %d: %s", soft, refused)
    return None if soft == resource.RLIM_INFINITY else soft
