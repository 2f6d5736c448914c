"""Settings of the pod itself: name, HTTP port, load."""

import socket

from router.settings.groups.group import Group
from router.settings.types import Ms, Seconds, setting


class Pod(Group):
    """The pod and its HTTP port"""

    pod_name: str = setting(
        socket.gethostname,
        description="Name of this pod in the reply header `router-pod`, in logs and in the audit.",
        default_text="(the host name)",
        pattern=r"^[A-Za-z0-9_.-]{1,255}$",
    )
    http_host: str = setting(
        "::",
        description="Address of /livez, /readyz and /metrics; `::` takes IPv6 and IPv4, and is 0.0.0.0 where there is "
        "no IPv6.",
        min_length=1,
    )
    http_port: int = setting(8080, description="Port of that address; 0 takes a free port.", ge=0, le=65535)
    http_max_connections: int = setting(
        2048,
        description="Maximum HTTP connections, at most half of the files that the pod may open; the one that has "
        "waited longest is closed for a new one.",
        ge=1,
        le=1_000_000,
    )
    secrets_poll_ms: Ms = setting(
        5_000,
        description="Interval at which mounted passwords, tokens, credentials and TLS files are looked at; changed "
        "ones are used without a restart.",
        ge=100,
        le=3_600_000,
    )
    drain_timeout_s: Seconds = setting(
        25, description="Time that accepted work has to finish after SIGTERM.", ge=1, le=3600
    )
    max_in_flight: int = setting(
        1024,
        description="Requests in the pod at once; further ones are refused with `service_overloaded` before they are "
        "decoded. From half of it on, a tenant may have as many requests in the pod as there are free places, and "
        "always 8.",
        ge=1,
        le=1_000_000,
    )
