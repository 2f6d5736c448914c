"""The time that a request with extensions waits for the store."""

import asyncio

import pytest

from router.errors import OutcomeUnknown, StoreUnavailable
from router.usecases.extensions.store_time import StoreTime

LITTLE_S = 0.05


async def _take(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


async def _extensions_run(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def test_acts_share_one_time() -> None:
    """The second act has only what the first one left, and what was waited before counts."""
    time = StoreTime(3600.2, 3600)
    assert await time.of(_take(0)) == "done"
    with pytest.raises(OutcomeUnknown, match="ROUTER_DECIDE_WAIT"):
        await time.of(_take(3600))
    with pytest.raises(OutcomeUnknown, match="ROUTER_DECIDE_WAIT"):
        await time.of(_take(0.001))


async def test_the_time_of_extensions_does_not_count() -> None:
    """Only what is awaited here is spent."""
    time = StoreTime(LITTLE_S)
    assert time.since is None
    await _extensions_run(2 * LITTLE_S)
    assert await time.of(_take(0)) == "done"


async def test_a_row_begins_with_what_was_spent() -> None:
    """Its wait counts from then."""
    now, time = asyncio.get_running_loop().time, StoreTime(5, 2)
    before = now()
    assert before - 2 <= (time.since or 0) <= now() - 2
    assert await time.spent_on(_take(LITTLE_S)) == "done"
    spent = now() - before
    assert now() - 2 - spent <= (time.since or 0) <= now() - 2 - 0.9 * LITTLE_S


async def test_a_fault_is_passed_on_and_no_time_is_no_wait() -> None:
    """A store that refuses is no timeout; with nothing left an act ends at once."""

    async def away() -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        await StoreTime(1).of(away())
    with pytest.raises(OutcomeUnknown):
        await StoreTime(1, 3).of(_take(10))
