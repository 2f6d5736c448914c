"""Track which cached tenants are behind the store, and for how long.

A tenant is behind from the first decide row that returns another stamp until a load succeeds or a row returns the
cached stamp. The gauges over this have no tenant label: the number of such tenants, and the age of the oldest.
"""

from collections.abc import Callable


class RevisionSkew:
    """Tenants behind the store, by the time of the first differing stamp. `clock` is monotonic, in seconds.

    `since` is public for reading: the hot path tests once per row whether it is empty.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Insertion order is age: a tenant that is behind already keeps its place.
        self.since: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.since)

    @property
    def oldest_s(self) -> float:
        """Seconds that the oldest of these tenants has been behind; 0 if there is none."""
        first = next(iter(self.since.values()), None)
        return 0.0 if first is None else max(0.0, self._clock() - first)

    def behind(self, tenant_id: str) -> None:
        """Note that a row has returned another stamp than the cached one."""
        self.since.setdefault(tenant_id, self._clock())

    def agrees(self, tenant_id: str) -> None:
        """Note that a row has returned the cached stamp, or that the tenant was loaded or evicted."""
        if self.since:
            self.since.pop(tenant_id, None)
