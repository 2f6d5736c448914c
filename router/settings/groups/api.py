"""Settings of the HTTP API: address, TLS, and who may ask."""

from pathlib import Path
from typing import Literal

from router.settings.groups.group import Group
from router.settings.types import ExistingFile, Texts, setting


class Api(Group):
    """The HTTP API"""

    api: Literal["on", "off"] = setting("off", description="Whether the pod answers over HTTP.")
    api_host: str = setting(
        "::",
        description="Address of the API; `::` takes IPv6 and IPv4, and is 0.0.0.0 where there is no IPv6.",
        min_length=1,
    )
    api_port: int = setting(8081, description="Port of that address; 0 takes a free port.", ge=0, le=65535)
    api_max_connections: int = setting(
        2048,
        description="Maximum connections, at most half of the files that the pod may open; the one that has waited "
        "longest is closed for a new one.",
        ge=1,
        le=1_000_000,
    )
    api_auth: Literal["keys", "open"] = setting(
        "keys",
        description="Who may ask: holders of a key, or, with `open`, anybody who reaches the port (but no web page: "
        "bodies must be `application/json`, and Host an address, `localhost` or one of ROUTER_API_HOSTS).",
    )
    api_keys_file: Path | None = setting(
        None,
        description="File of the API keys, made by `router key`. It is read again when it changes. Without a readable "
        "file the API does not start, and `/readyz` says why.",
    )
    api_hosts: Texts = setting((), description="Host names that requests may name where ROUTER_API_AUTH is open.")
    api_cors_origins: Texts = setting(
        (), description="Web pages that may ask, such as `https://console.example`; others are stopped by the browser."
    )
    api_tls_cert: ExistingFile | None = setting(None, description="Certificate of the API, for HTTPS.")
    api_tls_key: ExistingFile | None = setting(None, description="Key of the certificate.")
    api_tls_client_ca: ExistingFile | None = setting(
        None, description="CA bundle: a client needs a certificate of it, beside its key."
    )
