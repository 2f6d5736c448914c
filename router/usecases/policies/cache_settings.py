"""What the policy cache is told, and what it reports of itself."""

from typing import Final

from msgspec import Struct


class CacheSettings(Struct, frozen=True):
    """Times in seconds. `max_bytes` bounds the estimated size: about 100 KB for each of 1000 tenants."""

    ttl_s: float = 300.0
    max_bytes: int = 100_000 * 1000
    negative_ttl_s: float = 1.0
    retry_s: float = 1.0
    tick_s: float = 0.25


DEFAULT_SETTINGS: Final = CacheSettings()
