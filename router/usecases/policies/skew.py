"""Which cached tenants are known to be behind the store, and for how long.

A tenant is behind from the first decide row that answers another stamp until a load has succeeded or a row answers the
cached stamp. That is all a pod can know of a tenant without asking the store for it, so the gauges that read this need
no label: how many, and since when the oldest.
"""

from collections.abc import Callable


class Skew:
    """Tenants by when they were first seen behind; `clock` is monotonic, in seconds.

    `since` is to be read only: whoever asks for every row whether there is any, asks the dict.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Insertion order is age: a tenant that is behind already keeps its place.
        self.since: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.since)

    @property
    def oldest_s(self) -> float:
        """How long the one that waits longest has been behind; 0 when none is."""
        first = next(iter(self.since.values()), None)
        return 0.0 if first is None else max(0.0, self._clock() - first)

    def behind(self, tenant_id: str) -> None:
        """A row has answered another stamp than the cached one."""
        self.since.setdefault(tenant_id, self._clock())

    def agrees(self, tenant_id: str) -> None:
        """A row has answered the cached stamp, or the tenant was loaded or forgotten."""
        if self.since:
            self.since.pop(tenant_id, None)
