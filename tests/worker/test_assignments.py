"""How a worker's result reaches JetStream."""

import logging
from typing import Any

import msgspec
import nats.errors
import pytest

from router.log_throttle import LogThrottle
from router.worker import assignments
from router.worker.assignments import Assignments
from router.worker.job import Handlers
from router.worker.messages import Assignment, Finished, read_assignment


class JetStream:
    """Refuses a number of publishes, then stores."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.timeouts: list[float] = []
        self.ids: set[str] = set()

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: dict[str, str],
        timeout: float,  # noqa: ASYNC109 - nats-py's name
    ) -> None:
        """One try."""
        self.timeouts.append(timeout)
        self.ids.add(headers["Nats-Msg-Id"])
        if len(self.timeouts) <= self.refusals:
            raise nats.errors.TimeoutError


BODY = {
    "version": "1",
    "assignment_id": "a1",
    "request_id": "r1",
    "tenant_id": "acme",
    "executor": {"provider_id": "p1", "channel": "nats"},
    "job": {"type": "echo", "payload": {}},
}


async def store(jetstream: Any) -> None:
    """Store the result of one assignment."""
    taken: Assignment = read_assignment(msgspec.json.encode(BODY))
    await Assignments(Handlers(), LogThrottle(lambda: 0.0))._store(jetstream, taken, Finished("success"), 5)


@pytest.mark.parametrize("refusals", [0, 1, 4])
async def test_a_result_is_stored_by_repeats_of_one_message(
    refusals: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused publish is repeated under the same id, and the log says so once."""
    monkeypatch.setattr(assignments, "RETRY_DELAYS_S", (0.0, 0.0, 0.0, 0.0))
    jetstream = JetStream(refusals)
    with caplog.at_level(logging.WARNING):
        await store(jetstream)
    assert jetstream.timeouts == [2, 2, 2, 2, 5][: refusals + 1]
    assert jetstream.ids == {"a1:result"}
    assert caplog.text.count("result not stored yet; retrying: a1: nats: timeout") == min(refusals, 1)


async def test_a_result_that_jetstream_refuses_to_the_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The assignment is not acknowledged then, so it is delivered again."""
    monkeypatch.setattr(assignments, "RETRY_DELAYS_S", (0.0,))
    with pytest.raises(nats.errors.TimeoutError):
        await store(JetStream(refusals=2))
