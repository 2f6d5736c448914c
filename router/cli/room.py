"""The store, for commands that look into it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from router.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from router.settings import Settings
    from router.store.keys import Keys
    from router.store.nodes import Nodes


class Room(Struct, frozen=True):
    """An open store."""

    keys: "Keys"
    nodes: "Nodes"


@asynccontextmanager
async def store(settings: "Settings", *, reading: bool = False) -> AsyncIterator[Room]:
    """The fleet's store, opened for reading and writing; `reading`: a replica will do, if one is named.

    :raises StoreError: Redis did not answer.
    :raises InvalidInput: the fleet was set up with another number of partitions than these settings say.
    """
    from router.app.adapter_settings import redis_access
    from router.store.keys import Keys
    from router.store.nodes import Cluster, SingleNode

    kind = Cluster if settings.redis_cluster else SingleNode
    url = (settings.redis_replica_url if reading else None) or settings.redis_url
    nodes: Nodes = kind(url, redis_access(settings))
    try:
        await nodes.open()
        keys = Keys(settings.store_schema, settings.partitions)
        found = await nodes.call("HGET", keys.meta, "partitions")
        if found is not None and int(found) != settings.partitions:
            message = f"is {settings.partitions}, but the fleet was set up with {int(found)}"
            raise InvalidInput([Problem("ROUTER_PARTITIONS", message, f"set ROUTER_PARTITIONS={int(found)}")])
        yield Room(keys, nodes)
    finally:
        await nodes.close()
