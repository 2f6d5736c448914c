"""What is measured, in which order. Everything that is compared is measured in the same round, so that a machine that
speeds up or slows down meanwhile does so for all of it."""

import sys
from collections.abc import Callable, Iterator

from msgspec import Struct

from bench.measure import Measurement, measure
from bench.stack import ECHO_NATIVE, ECHO_PYTHON, NAIVE, SUBJECT, Stack

OUTSTANDING = (1, 16, 64, 256, 512)
RATES = (1_000, 5_000, 10_000, 20_000)
MAIN, MAIN_RATE = 256, 5_000
_ECHOED = '"request_id"'


class Effort(Struct, frozen=True):
    """How long to look. Seconds; `ceiling_rows` are packed beforehand, a fifth of them warms up."""

    rounds: int
    open_repeats: int
    warmup_s: float
    measure_s: float
    echo_s: float
    ceiling_rows: int
    memory_keys: int
    outstanding: tuple[int, ...] = OUTSTANDING
    rates: tuple[int, ...] = RATES


FULL = Effort(3, 1, 1.0, 3.0, 1.5, 60_000, 1_000_000)
QUICK = Effort(1, 3, 0.4, 1.0, 0.5, 16_000, 100_000, (1, 64, 256), (1_000, 5_000))


class Record(Struct, frozen=True):
    """One measurement: of `series`, with `amount` outstanding, a second, or rows a call."""

    series: str
    mode: str
    amount: int
    round: int
    measurement: Measurement


class Bench:
    """Runs the rounds; `say` is told each record as it comes."""

    def __init__(self, main: Stack, durable: Stack, effort: Effort, say: Callable[[Record], None]) -> None:
        self._main = main
        self._durable = durable
        self._effort = effort
        self._say = say
        self._round = 0
        self.records: list[Record] = []

    def run(self) -> list[Record]:
        """All rounds."""
        for number in range(1, self._effort.rounds + 1):
            self._round = number
            for record in self._one_round():
                self._say(record)
                self.records.append(record)
        return self.records

    def _one_round(self) -> Iterator[Record]:
        for n in self._effort.outstanding:
            yield self._closed("pod", SUBJECT, n)
            yield self._closed("naive", NAIVE, n)
        yield from self._ceilings()
        yield self._closed("pod-everysec", SUBJECT, MAIN, self._durable)
        for n in (1, MAIN):
            yield self._closed("echo", ECHO_PYTHON, n, expect=_ECHOED)
            if self._main.generator.native:
                yield self._closed("echo-native", ECHO_NATIVE, n, expect=_ECHOED)
        for rate in self._effort.rates:
            for _ in range(self._effort.open_repeats):
                yield self._open("pod", SUBJECT, rate)
                yield self._open("echo", ECHO_PYTHON, rate, expect=_ECHOED)

    def _ceilings(self) -> Iterator[Record]:
        """The script alone: at the batch that the pod had, its bare commands, kept busy, and one row a call."""
        pod = next(r for r in reversed(self.records) if r.series == "pod" and r.amount == MAIN and r.mode == "closed")
        same = max(1, round(pod.measurement.rows_per_call))
        yield self._ceiling("script", same, 1)
        yield self._ceiling("script-least", same, 1, script="least")
        yield self._ceiling("script-user-limit", same, 1, third="user")
        yield self._ceiling("script-busy", same, 2)
        yield self._ceiling("script-one-row", 1, 256)

    def _closed(self, series: str, subject: str, n: int, stack: Stack | None = None, **expect: str) -> Record:
        stack = stack or self._main
        seconds = self._effort.echo_s if expect else self._effort.measure_s
        command = stack.generator.closed(subject, n, self._effort.warmup_s, seconds, **expect)
        return self._record(series, "closed", n, command, stack)

    def _open(self, series: str, subject: str, rate: int, **expect: str) -> Record:
        seconds = self._effort.echo_s if expect else self._effort.measure_s
        command = self._main.generator.open(subject, rate, self._effort.warmup_s, seconds, **expect)
        return self._record(series, "open", rate, command, self._main)

    def _ceiling(
        self, series: str, rows_per_call: int, calls_in_flight: int, third: str = "tenant", script: str = "decide"
    ) -> Record:
        stack = self._main
        command = [
            *(sys.executable, "-m", "bench.ceiling", str(stack.redis_port), str(rows_per_call), str(calls_in_flight)),
            *(str(self._effort.ceiling_rows), f"{stack.generator.next_id_base():x}", third, script),
        ]
        # The caller takes the pod's place, and its CPU.
        return self._record(series, "script", rows_per_call, command, stack, stack.placement.pod)

    def _record(
        self, series: str, mode: str, amount: int, command: list[str], stack: Stack, cpus: str | None = None
    ) -> Record:
        found = measure(command, cpus or stack.placement.rest, stack.processes, stack.redis_port)
        stack.wipe()
        return Record(series, mode, amount, self._round, found)
