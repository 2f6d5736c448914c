"""`ports.tasks.DeliveryFailures` on Redis."""

from hashlib import blake2b

from router.store.keys import Keys
from router.store.scripts.load import load
from router.store.servers.nodes import Nodes

KEEP_MS = 3_600_000
_MESSAGE_BYTES = 12


class RedisDeliveryFailures:
    """Counts failures for the whole fleet; the port has the promises."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes
        self._count = load("count_strike", keys=("strikes",), argv=("keep_ms",), returns={0: "counted"})

    async def count(self, cause: str, sequence: int, data: bytes) -> int:
        """See `ports.tasks.DeliveryFailures.count`."""
        # The content is part of the name: a re-created stream starts with the same sequences.
        digest = blake2b(b"%b\0%d\0%b" % (cause.encode(), sequence, data), digest_size=_MESSAGE_BYTES).digest()
        reply = await self._nodes.run(self._count, [self._keys.failures(digest)], [KEEP_MS])
        return int(reply[1])
