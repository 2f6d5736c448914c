"""Streams and consumers that another client creates and deletes."""

import json

from router.bus.client.connection import Bus


async def delete(bus: Bus, what: str) -> None:
    """Another client's doing."""
    answer = json.loads((await bus.request(f"$JS.API.{what}", b"")).data)
    assert answer.get("success"), answer


async def create(bus: Bus, name: str, subjects: list[str], **config: object) -> None:
    """A stream of somebody else."""
    payload = json.dumps({"name": name, "subjects": subjects, "storage": "memory", **config}).encode()
    assert "error" not in json.loads((await bus.request(f"$JS.API.STREAM.CREATE.{name}", payload)).data)
