"""The store's own record: the number of partitions it was created with. Its absence means an empty store."""

from secrets import token_hex

from router.errors import StartupRefused
from router.store.keys import Keys
from router.store.scripts.load import load
from router.store.servers.hashes import field_pairs
from router.store.servers.nodes import Nodes

_EPISODE_MS = 6 * 3_600_000
_SCAN = 500


class RedisMeta:
    """Reads and writes the store's record."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes

    async def ensure(self) -> bool:
        """Write the record if it is absent, and check it against this pod's settings. True: it was absent.

        :raises StartupRefused: the store was created with another number of partitions.
        :raises StoreError: Redis did not answer.
        """
        meta = self._keys.meta
        configured = self._keys.partitions
        created = bool(await self._nodes.call("HSETNX", meta, "partitions", configured))
        if created:
            await self._nodes.call("HSETNX", meta, "store_id", token_hex(8))
        stored = await self._nodes.call("HGET", meta, "partitions")
        if stored is not None and int(stored) != configured:
            raise StartupRefused(
                f"the store has {int(stored)} partitions and ROUTER_PARTITIONS is {configured}: "
                f"set it to {int(stored)}; the number is fixed at the fleet's first boot"
            )
        return created


class RedisEpochs:
    """`ports.alerts.Epochs` on Redis: episodes by condition and scope, shared by all pods."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes
        self._begin = load("begin_epoch", keys=("epochs",), argv=("scope", "stale_ms"), returns={0: "begun"})
        self._end = load("end_epoch", keys=("epochs",), argv=("scope", "epoch"), returns={0: "ended"})

    async def begin(self, condition: str, scope: str) -> int:
        """See `ports.alerts.Epochs.begin`. An episode that no pod has joined for 6 hours counts as ended."""
        reply = await self._nodes.run(self._begin, [self._keys.epochs], [f"{condition}:{scope}", _EPISODE_MS])
        return int(reply[1])

    async def current(self, condition: str, scope: str) -> int | None:
        """See `ports.alerts.Epochs.current`."""
        stored = await self._nodes.call("HGET", self._keys.epochs, f"{condition}:{scope}")
        if stored is None:
            return None
        epoch, is_open, _joined_ms = stored.split()
        return int(epoch) if is_open == b"1" else None

    async def open_scopes(self, condition: str) -> list[str]:
        """See `usecases.alerts.breaker_episodes.OpenEpisodes.open_scopes`."""
        return sorted(scope for _, scope, _ in await self._open(f"{condition}:*"))

    async def stale(self, quiet_ms: int) -> list[tuple[str, str]]:
        """See `ports.alerts.Epochs.stale`."""
        # In a Cluster any primary's time: the differences do not matter here.
        seconds = min(int(now[0]) for now in await self._nodes.each("TIME"))
        since_ms = seconds * 1000 - quiet_ms
        return sorted((condition, scope) for condition, scope, at_ms in await self._open("*") if at_ms < since_ms)

    async def _open(self, pattern: str) -> set[tuple[str, str, int]]:
        """Condition, scope and last joining time of open episodes; scanned in steps, so no node is blocked."""
        episodes: set[tuple[str, str, int]] = set()
        cursor = 0
        while True:
            cursor, flat = await self._nodes.call("HSCAN", self._keys.epochs, cursor, "MATCH", pattern, "COUNT", _SCAN)
            for name, stored in field_pairs(flat):
                _, is_open, joined_ms = stored.split()
                if is_open == b"1":
                    condition, _, scope = name.decode().partition(":")
                    episodes.add((condition, scope, int(joined_ms)))
            cursor = int(cursor)
            if cursor == 0:
                return episodes

    async def end(self, condition: str, scope: str, epoch: int) -> None:
        """See `ports.alerts.Epochs.end`."""
        await self._nodes.run(self._end, [self._keys.epochs], [f"{condition}:{scope}", epoch])
