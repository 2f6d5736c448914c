"""The Redis connection of one command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from router.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from router.settings import Settings
    from router.store.keys import Keys
    from router.store.servers.nodes import Nodes
    from router.store.servers.replicas import Replicas


class Store(Struct, frozen=True):
    """An open store: its key names, its nodes, and its replicas, which must have what an operator is told."""

    keys: "Keys"
    nodes: "Nodes"
    replicas: "Replicas"


@asynccontextmanager
async def open_store(settings: "Settings", *, reading: bool = False) -> AsyncIterator[Store]:
    """Open the fleet's store. `reading`: use the replica, if the settings name one.

    :raises StoreError: Redis did not answer.
    :raises InvalidInput: the fleet has another number of partitions than these settings.
    """
    from router.app.redis_nodes import redis_nodes, redis_replica
    from router.store.keys import Keys
    from router.store.servers.replicas import Replicas

    nodes = (redis_replica(settings) if reading else None) or redis_nodes(settings)
    replicas = Replicas(nodes, settings.wait_replicas)
    try:
        await nodes.open()
        keys = Keys(settings.store_schema, settings.partitions)
        partitions = await nodes.call("HGET", keys.meta, "partitions")
        if partitions is not None and int(partitions) != settings.partitions:
            message = f"is {settings.partitions}, but the fleet was set up with {int(partitions)}"
            raise InvalidInput(
                [Problem("ROUTER_PARTITIONS", message=message, hint=f"set ROUTER_PARTITIONS={int(partitions)}")]
            )
        yield Store(keys, nodes, replicas)
    finally:
        await replicas.close()
        await nodes.close()
