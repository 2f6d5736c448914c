"""The measurement of the due sets takes what it says it takes."""

import asyncio
from pathlib import Path

from bench.store.due import measure
from router.usecases.tasks.sweep import MAXIMUM


async def test_looks_take_what_is_due_and_nothing_else(tmp_path: Path) -> None:
    """Nothing from an empty store or what is due later; full batches when all is due."""
    size, (empty, later, now) = await asyncio.to_thread(measure, tmp_path, 50, 20)
    assert size > 0
    assert (empty.taken, later.taken, now.taken) == (0, 0, MAXIMUM)
    assert min(empty.redis_us, later.redis_us, now.redis_us) > 0
