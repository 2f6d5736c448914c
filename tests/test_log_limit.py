"""Floods of warnings: a few lines a minute, each cause once, and the number of the others."""

import io
import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from router.log_limit import DISTINCT, SAME, WINDOW_S, LogLimit, flush_left_out
from router.logs import configure
from tests.fakes.clock import Clock

log = logging.getLogger("router.test")


class Stream:
    """A process's log, with a limit on a clock set by hand."""

    def __init__(self) -> None:
        self.clock, self._text = Clock(), io.StringIO()
        self.handler = configure("info", "json", stream=self._text)
        self.handler.filters[:] = [LogLimit(self.clock)]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """So far."""
        return [orjson.loads(line) for line in self._text.getvalue().splitlines()]

    def after(self, seconds: float) -> list[dict[str, Any]]:
        """So far, some time later, with what the ticker writes."""
        self.clock.now += seconds
        flush_left_out()
        return self.lines


@pytest.fixture
def stream() -> Iterator[Stream]:
    """The process's log."""
    root, stream = logging.getLogger(), Stream()
    level = root.level
    yield stream
    root.removeHandler(stream.handler)
    root.setLevel(level)


def bad(text: str, **fields: Any) -> None:
    """One line of one place in the code."""
    log.warning("unreadable: %s", text, extra=fields)


def test_one_text_is_written_a_few_times(stream: Stream) -> None:
    """2,000 times within a minute; the rest is a number when the minute is over."""
    for _ in range(2_000):
        bad("broken", event="policy.stale")
    assert len(stream.lines) == SAME
    *_, last = stream.after(WINDOW_S)
    assert (last["event"], last["left_out"], last["of"]) == ("log.limited", 2_000 - SAME, "policy.stale")


def test_many_texts_of_one_place_are_bounded(stream: Stream) -> None:
    """An outsider who makes every line another one gets no more lines."""
    for n in range(2_000):
        bad(f"broken {n}")
    assert len(stream.lines) == DISTINCT
    assert stream.after(WINDOW_S)[-1]["left_out"] == 2_000 - DISTINCT


@pytest.mark.parametrize("field", ["reason", "warning", "condition", "tenant_id"])
def test_another_cause_is_written_during_a_flood(stream: Stream, field: str) -> None:
    """Another text, reason, condition or tenant is evidence of its own."""
    for _ in range(1_000):
        bad("broken")
    bad("other")
    bad("broken", **{field: "other"})
    assert len(stream.lines) == SAME + 2


def test_the_next_line_has_the_number(stream: Stream) -> None:
    """The ticker need not run: the first line of the next minute says what was left out, and nothing is said twice."""
    for _ in range(100):
        bad("broken")
    stream.clock.now = WINDOW_S
    bad("broken")
    assert stream.lines[-1]["left_out"] == 100 - SAME
    assert len(stream.after(WINDOW_S)) == SAME + 1


def test_errors_are_told_apart_by_their_class(stream: Stream) -> None:
    """A bug that one message triggers does not hide another one."""
    for kind in (ValueError, KeyError):
        for _ in range(100):
            try:
                raise kind("x")
            except kind:
                log.exception("failed")
    assert len(stream.lines) == 2 * SAME


def test_other_places_and_lower_levels_are_not_limited(stream: Stream) -> None:
    """What the pod says at info follows from its settings; another place has its own minute."""
    for _ in range(200):
        log.info("a line")
    for _ in range(200):
        bad("broken")
    log.error("elsewhere")
    assert len(stream.lines) == 200 + SAME + 1
    assert stream.lines[-1]["message"] == "elsewhere"


def test_a_quiet_pod_writes_nothing(stream: Stream) -> None:
    """Nothing was left out: no line says so."""
    bad("once")
    assert len(stream.after(WINDOW_S)) == 1
