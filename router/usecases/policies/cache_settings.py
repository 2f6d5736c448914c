"""Settings of the policy cache."""

from typing import Final

from msgspec import Struct


class CacheSettings(Struct, frozen=True):
    """Times in seconds. `max_bytes` bounds the estimated size; the default is 100 KB for each of 1,000 tenants.

    `ttl_s`: age at which an entry is reloaded. `absent_ttl_s`: how long a tenant without policies is trusted to have
    none; `negative_ttl_s`: the same for a policy id that a tenant lacks. `retry_s`: pause after a failed load, or after
    one that brought no change. `tick_s`: interval of the refresh loop.
    """

    ttl_s: float = 300.0
    max_bytes: int = 100_000 * 1000
    absent_ttl_s: float = 2.0
    negative_ttl_s: float = 1.0
    retry_s: float = 1.0
    tick_s: float = 0.25


DEFAULT_SETTINGS: Final = CacheSettings()
