"""The time that a request with extensions waits for the store."""

import asyncio

import pytest

from router.errors import OutcomeUnknown, StoreUnavailable
from router.usecases.extensions.store_time import StoreTime


async def _take(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


async def test_acts_share_one_time() -> None:
    """The second act has only what the first one left, and what was waited before counts."""
    time = StoreTime(0.5, 0.2)
    assert await time.of(_take(0.2)) == "done"
    started = asyncio.get_running_loop().time()
    with pytest.raises(OutcomeUnknown, match="ROUTER_DECIDE_WAIT"):
        await time.of(_take(10))
    assert asyncio.get_running_loop().time() - started < 0.3


async def test_the_time_of_extensions_does_not_count() -> None:
    """Only what is awaited here is spent."""
    time = StoreTime(0.2)
    assert time.since is None
    await asyncio.sleep(0.25)
    assert await time.of(_take(0)) == "done"


async def test_a_row_begins_with_what_was_spent() -> None:
    """Its wait counts from then."""
    time = StoreTime(5, 2)
    assert time.since == pytest.approx(asyncio.get_running_loop().time() - 2, abs=0.05)
    assert await time.spent_on(_take(0.1)) == "done"
    assert time.since == pytest.approx(asyncio.get_running_loop().time() - 2.1, abs=0.05)


async def test_a_fault_is_passed_on_and_no_time_is_no_wait() -> None:
    """A store that refuses is no timeout; with nothing left an act ends at once."""

    async def away() -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        await StoreTime(1).of(away())
    with pytest.raises(OutcomeUnknown):
        await StoreTime(1, 3).of(_take(10))
