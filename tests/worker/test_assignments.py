"""How a worker's result reaches JetStream."""

import logging
from typing import Any

import msgspec
import nats.errors
import pytest

from router.domain.tasks.result import ExecAck, ExecResult, ResultStatus
from router.log_throttle import LogThrottle
from router.wire.subjects import WORKER_DEAD_LETTER
from router.wire.worker.results import decode_ack, decode_result
from router.worker import assignments
from router.worker.assignments import Assignments
from router.worker.job import Handlers
from router.worker.messages import Assignment, Finished, ack, read_assignment, result


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


UUID = "00070000-0000-4000-8000-000000000001"
BODY = {
    "version": "1",
    "assignment_id": "a1",
    "request_id": "r1",
    "tenant_id": "acme",
    "executor": {"provider_id": "p1", "channel": "nats"},
    "job": {"type": "echo", "payload": {}},
}


def deep(levels: int) -> Any:
    """A list in a list in a list …"""
    value: Any = None
    for _ in range(levels):
        value = [value]
    return value


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


class Line:
    """A connection that keeps what is published, and a message that keeps what is said about it."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Any]] = []
        self.said: list[str] = []

    async def publish(self, subject: str, payload: bytes) -> None:
        """Core publish."""
        self.published.append((subject, msgspec.json.decode(payload)))

    async def ack(self) -> None:
        """Done."""
        self.said.append("ack")

    async def in_progress(self) -> None:
        """Not yet."""


@pytest.mark.parametrize(("refusals", "reported"), [(1, 0), (2, 1), (9, 1)])
async def test_a_result_that_no_stream_stores_is_reported(
    monkeypatch: pytest.MonkeyPatch, refusals: int, reported: int
) -> None:
    """By a dead letter over core NATS, after the last try; the assignment stays unacknowledged."""
    monkeypatch.setattr(assignments, "RETRY_DELAYS_S", (0.0,))
    handlers, line = Handlers(), Line()

    async def echo(_job: Any) -> dict[str, str]:
        return {}

    handlers.add("echo", echo, dict)
    running: Any = Assignments(handlers, LogThrottle(lambda: 0.0))
    taken = read_assignment(msgspec.json.encode(BODY))
    try:
        await running._perform(line, JetStream(refusals), line, taken)
    except nats.errors.TimeoutError:
        assert reported
    letters = [body["data"] for subject, body in line.published if subject == WORKER_DEAD_LETTER]
    assert [(x["reason"], x["payload_ref"]) for x in letters] == [("PUBLISH_ERROR", "a1")] * reported
    assert line.said == ["ack"] * (1 - reported)


@pytest.mark.parametrize(
    ("output", "read"),
    [
        ("cut \ud83d", "cut �"),
        ({"a": ["\udc00"]}, {"a": ["�"]}),
        ({"a": float("nan")}, {"a": None}),
        ({"\ud800": 2**70}, {"�": float(2**70)}),
    ],
)
def test_an_output_that_the_strict_encoder_refuses_is_reported(output: Any, read: Any) -> None:
    """Half a character, a number that is not finite, a number beyond 64 bits: the router reads what was sent."""
    sent = Finished("success", output=output, tokens={"input": 3, "output": 4})
    r = decode_result(
        result(read_assignment(msgspec.json.encode(BODY | {"assignment_id": UUID})), sent, 5, now_ms=6), None
    )
    assert isinstance(r, ExecResult)
    assert (r.status, r.output, r.tokens, r.tokens_input) == (ResultStatus.SUCCESS, read, 7, 3)


@pytest.mark.parametrize("output", [object(), {1, 2}, deep(100_000), {"a": object()}])
def test_an_output_that_is_no_json_is_an_error_result(output: Any) -> None:
    """The attempt ends, and the work does not run again and again."""
    sent = Finished("success", output=output, cost=0.5)
    r = decode_result(
        result(read_assignment(msgspec.json.encode(BODY | {"assignment_id": UUID})), sent, 5, now_ms=6), None
    )
    assert isinstance(r, ExecResult)
    assert (r.status, r.error_code, r.cost_microusd) == (ResultStatus.ERROR, "WORKER_ERROR", 500_000)
    assert "not JSON" in (r.error_message or "")


def test_a_reason_with_half_a_character_is_reported() -> None:
    """In an ack."""
    taken = read_assignment(msgspec.json.encode(BODY | {"assignment_id": UUID}))
    read = decode_ack(ack(taken, "rejected", message="no \ud83d"), None)
    assert isinstance(read, ExecAck)
    assert read.message == "no �"


@pytest.mark.parametrize("data", [b'{"version":"\xff"}', b'"\xc3', b"[" * 100_000, b'{"job":{"type":"\xed\xa0\x80"}}'])
def test_bytes_that_are_no_text_are_no_assignment(data: bytes) -> None:
    """One error for every unreadable assignment: the worker dead-letters it instead of taking it again."""
    with pytest.raises(msgspec.DecodeError):
        read_assignment(data)
