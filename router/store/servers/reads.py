"""Reads of many keys in one round trip, where a damaged key does not fail the others."""

from collections.abc import Sequence
from typing import Any

from router.domain.tasks.task import Unreadable
from router.errors import StoreDamaged, StoreForbidden
from router.store.servers.link import Command
from router.store.servers.nodes import Nodes


async def read_each(nodes: Nodes, commands: Sequence[Command]) -> list[Any]:
    """The replies in order. A key of a wrong type gives `Unreadable`, and does not affect the others.

    Only for commands that may be repeated: if one fails, all are sent again, one by one.

    :raises StoreError: Redis did not answer.
    """
    try:
        return await nodes.gather(commands)
    except StoreDamaged:
        return [await _alone(nodes, command) for command in commands]


async def _alone(nodes: Nodes, command: Command) -> Any:
    try:
        return await nodes.call(*command)
    except StoreDamaged as fault:
        return Unreadable(str(fault))


async def sizes(nodes: Nodes, keys: Sequence[bytes]) -> list[int | None]:
    """Estimated bytes of each key; None: the key is gone, or an ACL hides it, as it may hide keys of others.

    :raises StoreError: Redis did not answer.
    """
    commands: list[Command] = [("MEMORY", "USAGE", key, "SAMPLES", 5) for key in keys]
    try:
        return await nodes.gather(commands)
    except StoreForbidden:
        return [await _size(nodes, command) for command in commands]


async def _size(nodes: Nodes, command: Command) -> int | None:
    try:
        size: int | None = await nodes.call(*command)
    except StoreForbidden:
        return None
    return size
