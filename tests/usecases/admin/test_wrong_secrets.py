"""Wrong admin tokens: one log line a minute with their number, a metric, and an alert at a hundred a minute."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from router.domain.alert import Condition
from router.domain.json import JsonObject
from router.telemetry import Telemetry
from router.usecases.admin.wrong_secrets import ADMIN_TOKEN, WrongSecrets


class Room:
    """A watch with a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.alerts: list[Condition] = []
        self.telemetry = Telemetry(CollectorRegistry())
        self.watch = WrongSecrets(
            ADMIN_TOKEN, self, count=self.telemetry.admin_wrong_tokens.inc, clock=lambda: self.now
        )

    def occurred(
        self, condition: Condition, scope: str, *, message: str = "", metadata: JsonObject | None = None
    ) -> None:
        """Note the alert."""
        self.alerts.append(condition)

    def raise_(
        self, condition: Condition, scope: str, *, message: str = "", metadata: JsonObject | None = None
    ) -> None:
        """Not used here."""
        raise AssertionError(condition)

    def resolve(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """Not used here."""
        raise AssertionError(condition)

    def guess(self, count: int, every_s: float = 0.0) -> None:
        """So many wrong tokens."""
        for _ in range(count):
            self.watch.seen()
            self.now += every_s

    def wait(self, seconds: int) -> None:
        """The seconds pass, each with its tick."""
        for _ in range(seconds):
            self.now += 1
            self.watch.tick()


def lines(caplog: pytest.LogCaptureFixture) -> list[int]:
    """The numbers that the log has."""
    return [record.__dict__["count"] for record in caplog.records if record.levelno == logging.WARNING]


def test_a_flood_is_two_lines_and_no_guess_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """The first at once, the others together when the minute is over, though nobody guesses any more."""
    room = Room()
    room.guess(3000)
    assert lines(caplog) == [1]
    room.wait(59)
    assert lines(caplog) == [1]
    room.wait(200)
    assert lines(caplog) == [1, 2999]


def test_a_steady_stream_is_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """For ten minutes, one guess a second."""
    room = Room()
    for _ in range(600):
        room.watch.seen()
        room.wait(1)
    assert 10 <= len(lines(caplog)) <= 11
    room.wait(61)
    assert sum(lines(caplog)) == 600


@pytest.mark.parametrize(
    ("count", "every_s", "alerted"), [(99, 0.0, False), (100, 0.0, True), (100, 0.6, True), (1000, 0.61, False)]
)
def test_a_hundred_within_a_minute_raise_an_alert(count: int, every_s: float, alerted: bool) -> None:
    """A minute that may begin at any moment."""
    room = Room()
    room.guess(count, every_s)
    assert bool(room.alerts) is alerted
    assert set(room.alerts) <= {Condition.ADMIN_TOKENS_GUESSED}
