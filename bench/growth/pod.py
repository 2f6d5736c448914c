"""Instructions of the pod per decision, by shape: counted as `bench.count.pod` does, 16 rows a call.

`python -m bench.growth.pod`, under callgrind with `--instr-atstart=no`. One pod serves every shape; each has tenants of
its own. Standard output gets a line of JSON: shape → decisions that were counted.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from itertools import count

from bench.count.client_requests import Callgrind
from bench.count.fakes import FakeNetwork, Load
from bench.count.pod import WARM_CALLS, chunks, connected_pod, count_load, ignore, still_clock
from bench.growth.shapes import Shape, counted
from router.domain.policy.document import parse
from router.domain.policy.model import StoredPolicy

ROWS, CALLS = 16, 24


def stored(shape: Shape, number: int) -> dict[str, StoredPolicy]:
    """A shape's tenants with their policies, each compiled by itself."""
    names = [tenant.decode() for tenant in (_tenants(number) + b"%05d" % n for n in range(shape.tenants))]
    return {name: StoredPolicy("default", 1, "0" * 16, parse(shape.document()).policy) for name in names}


def requests(shape: Shape, number: int, ids: "count[int]") -> Iterator[bytes]:
    """A shape's requests, from its own tenants."""
    many = ROWS * (WARM_CALLS + CALLS) + 1
    for payload in shape.requests(many, (f"{n:016x}" for n in ids)):
        yield payload.replace(b"tenant-", _tenants(number), 1)


def _tenants(number: int) -> bytes:
    return b"shape-%02d-" % number


async def _count() -> dict[str, int]:
    still_clock()
    network, callgrind, ids = FakeNetwork(), Callgrind(), count()
    shapes = [(name, shape) for name, shape in counted().items() if not shape.audit]
    everyone = {name: p for n, (_, shape) in enumerate(shapes) for name, p in stored(shape, n).items()}
    await connected_pod(network, everyone)
    found = {}
    for number, (name, shape) in enumerate(shapes):
        warm, measured = (
            Load(ROWS, True, chunks(ROWS, requests(shape, number, ids)), ignore, shape.candidates, shape.pins)
            for _ in range(2)
        )
        found[name] = await count_load(network, callgrind, warm, measured, name)
    return found


def main() -> None:
    """Count, and end without the pod's farewells."""
    print(json.dumps(asyncio.run(_count())), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
