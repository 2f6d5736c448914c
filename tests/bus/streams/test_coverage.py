"""Which subjects a stream covers, when JetStream answers late or never."""

import asyncio
import logging
from typing import Any

import pytest

from router.bus.streams import coverage as module
from router.bus.streams.coverage import Coverage
from router.errors import BusError


class JetStream:
    """Stands in for `Streams`: fails a number of times, then knows one stream."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def specified(self, subject: str) -> bool:
        """Nothing is."""
        return False

    async def covering(self, subject: str) -> list[str]:
        """The streams of a subject."""
        self.calls += 1
        if self.calls <= self.failures:
            raise BusError("no leader")
        return ["S"]


async def asked(jetstream: Any, give_up_s: float) -> tuple[Coverage, bool | None]:
    """What a look-up of one subject ends with."""
    coverage = Coverage(jetstream, give_up_s=give_up_s)
    answer: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
    coverage.ask("a.b", answer.set_result)
    return coverage, await asyncio.wait_for(answer, 10)


async def test_a_look_up_is_repeated_until_jetstream_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without a leader costs repeats; what is found then is known without a further look-up."""
    monkeypatch.setattr(module, "_RETRY_S", 0.001)
    jetstream = JetStream(failures=3)
    coverage, covered = await asked(jetstream, give_up_s=10.0)
    assert (covered, coverage.known("a.b"), jetstream.calls) == (True, True, 4)


async def test_a_look_up_ends_without_an_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After `give_up_s` the asker hears that nobody knows, the log says why, and nothing is remembered."""
    monkeypatch.setattr(module, "_RETRY_S", 0.001)
    with caplog.at_level(logging.ERROR):
        coverage, covered = await asked(JetStream(failures=1_000_000), give_up_s=0.01)
    assert (covered, coverage.known("a.b")) == (None, None)
    assert "cannot look up the stream of a.b: no leader" in caplog.text
