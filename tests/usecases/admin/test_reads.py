"""The bounds of administrative reads: rate, concurrency, sharing."""

import asyncio
from collections import Counter

import pytest

from router.errors import StoreUnavailable
from router.usecases.admin.reads import BURST_S, MAX_QUEUED, MAX_SHARED, MAX_WAIT_S, ReadBounds, Reads, TooManyReads
from tests.fakes.clock import Clock

ANY_RATE = 1e9


class Source:
    """Counts reads; they wait while the gate is closed."""

    def __init__(self) -> None:
        self.begun = 0
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None

    async def read(self) -> int:
        """The number of this read."""
        self.begun += 1
        number = self.begun
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            if self.fault is not None:
                raise self.fault
        finally:
            self.running -= 1
        return number


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock(100.0)


@pytest.fixture
async def source() -> Source:
    """A source."""
    return Source()


@pytest.mark.parametrize("per_s", [1, 10, 100])
async def test_reads_above_the_rate_wait_and_then_are_refused(
    per_s: int, clock: Clock, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any second no more than the rate, and what may come at once; nobody waits longer than two seconds."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("router.usecases.admin.reads.asyncio.sleep", sleep)
    reads: Reads[int] = Reads(ReadBounds(per_s=per_s), clock)
    refused: list[int] = []
    for _ in range(4 * per_s + 4):
        try:
            await reads.run(source.read)
        except TooManyReads as fault:
            refused.append(fault.retry_after_ms)
    assert all(MAX_WAIT_S * 1000 < ms <= (MAX_WAIT_S + 1 / per_s) * 1000 + 1 for ms in refused)
    assert waits == sorted(waits)
    assert max(waits, default=0.0) <= MAX_WAIT_S
    assert source.begun <= per_s * (MAX_WAIT_S + max(BURST_S, 1 / per_s)) + 1
    assert len(refused) == 4 * per_s + 4 - source.begun
    clock.now += 1
    begun = source.begun
    await reads.run(source.read)
    assert source.begun == begun + 1


async def test_so_many_run_and_so_many_wait(clock: Clock, source: Source) -> None:
    """Further ones are refused; when the reads end, those that wait are next."""
    reads: Reads[int] = Reads(ReadBounds(per_s=ANY_RATE, at_once=3), clock)
    source.gate.clear()
    running = [asyncio.ensure_future(reads.run(source.read)) for _ in range(3 + MAX_QUEUED)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(TooManyReads):
        await reads.run(source.read)
    source.gate.set()
    await asyncio.gather(*running)
    assert (source.begun, source.most) == (3 + MAX_QUEUED, 3)
    await reads.run(source.read)


async def test_equal_reads_share_one(clock: Clock, source: Source) -> None:
    """While it is read and until a second after its beginning; other keys have their own."""
    shared = Counter[str]()
    reads: Reads[int] = Reads(ReadBounds(per_s=ANY_RATE), clock, lambda: shared.update(["shared"]))
    source.gate.clear()
    asked = [asyncio.ensure_future(reads.run(source.read, shared_as="a")) for _ in range(10)]
    other = asyncio.ensure_future(reads.run(source.read, shared_as="b"))
    await asyncio.sleep(0)
    clock.now += 5  # a read that takes long is shared as long
    asked.append(asyncio.ensure_future(reads.run(source.read, shared_as="a")))
    await asyncio.sleep(0)
    source.gate.set()
    assert set(await asyncio.gather(*asked)) == {1}
    assert await other == 2
    assert shared["shared"] == 10
    assert await reads.run(source.read, shared_as="a") == 3
    clock.now += 0.99
    assert await reads.run(source.read, shared_as="a") == 3
    clock.now += 0.01
    assert await reads.run(source.read, shared_as="a") == 4


async def test_without_a_key_nothing_is_shared(clock: Clock, source: Source) -> None:
    """Each is read."""
    reads: Reads[int] = Reads(ReadBounds(per_s=ANY_RATE), clock)
    assert [await reads.run(source.read) for _ in range(4)] == [1, 2, 3, 4]


async def test_a_failure_is_not_remembered(clock: Clock, source: Source) -> None:
    """All who wait get it, and the next one reads again."""
    reads: Reads[int] = Reads(ReadBounds(per_s=ANY_RATE), clock)
    source.fault = StoreUnavailable("away")
    found = await asyncio.gather(*(reads.run(source.read, shared_as="a") for _ in range(3)), return_exceptions=True)
    assert [type(x) for x in found] == [StoreUnavailable] * 3
    source.fault = None
    assert await reads.run(source.read, shared_as="a") == source.begun


async def test_a_cancelled_reader_costs_the_others_nothing(clock: Clock, source: Source) -> None:
    """The read goes on for them."""
    reads: Reads[int] = Reads(ReadBounds(per_s=ANY_RATE), clock)
    source.gate.clear()
    first, second = (asyncio.ensure_future(reads.run(source.read, shared_as="a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()
    assert await second == 1


async def test_kept_answers_are_bounded(clock: Clock, source: Source) -> None:
    """The oldest go first."""
    reads: Reads[int] = Reads(ReadBounds(per_s=ANY_RATE), clock)
    for n in range(MAX_SHARED + 1):
        await reads.run(source.read, shared_as=n)
    assert await reads.run(source.read, shared_as=MAX_SHARED) == MAX_SHARED + 1
    assert await reads.run(source.read, shared_as=0) == MAX_SHARED + 2
