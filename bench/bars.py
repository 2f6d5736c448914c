"""What the figures must reach, computed from the records of one run."""

from collections.abc import Callable, Iterable
from statistics import median

from msgspec import Struct

from bench.measure import Latency
from bench.rounds import MAIN, MAIN_RATE, Record
from router.domain.decide.decision import Code

Pick = Callable[[Record], float]
_OVERLOADED = Code.SERVICE_OVERLOADED.value


class Bar(Struct, frozen=True):
    """One promise: what was measured, what was asked, and whether it holds."""

    name: str
    value: float
    bound: float
    at_least: bool
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def select(records: Iterable[Record], series: str, mode: str, amount: int | None = None) -> list[Record]:
    """The records of one series, in order; `amount` None: whatever amount."""
    return [r for r in records if r.series == series and r.mode == mode and amount in (None, r.amount)]


def typical(records: Iterable[Record], pick: Pick) -> float:
    """The median over the rounds; NaN when there are none."""
    values = [pick(r) for r in records]
    return median(values) if values else float("nan")


def ratio(above: list[Record], below: list[Record]) -> float:
    """The median over the rounds of the ratio within a round."""
    rates = {r.round: rate(r) for r in below}
    return median(rate(r) / rates[r.round] for r in above)


def rate(record: Record) -> float:
    """Requests answered a second."""
    return record.measurement.load.rate


def cpu_us(process: str) -> Pick:
    """The CPU of one process for one request."""
    return lambda record: record.measurement.cpu_us.get(process, 0.0)


def best_run(records: list[Record]) -> Latency:
    """Latencies of the best run without a fault (a refusal is quick, and no answer); infinite when there is none."""
    clean = [r.measurement.load.latency_us for r in records if not _bad(r)]
    never = Latency(*[float("inf")] * len(Latency.__struct_fields__))
    return min(clean, key=lambda latency: (latency.p99, latency.p50), default=never)


def bars(records: list[Record]) -> list[Bar]:
    """Every promise, in its order."""
    pod = select(records, "pod", "closed", MAIN)
    best = best_run(select(records, "pod", "open", MAIN_RATE))
    return [
        Bar("pod ÷ naive pod, decisions/s", ratio(pod, select(records, "naive", "closed", MAIN)), 4, True, "×"),
        Bar("pod ÷ its script alone, same batch", 100 * ratio(pod, select(records, "script", "script")), 40, True, "%"),
        Bar("Redis CPU per decision (AOF off)", typical(pod, cpu_us("redis")), 14, False, "µs"),
        Bar("pod CPU per decision", typical(pod, cpu_us("pod")), 20, False, "µs"),
        Bar(f"open loop {MAIN_RATE}/s p50, best run", best.p50 / 1000, 2, False, "ms"),
        Bar(f"open loop {MAIN_RATE}/s p99, best run", best.p99 / 1000, 10, False, "ms"),
        Bar("requests lost, answered twice or wrongly", sum(_wrong(r) for r in records), 0, False, ""),
    ]


def _bad(record: Record) -> int:
    return _wrong(record) + record.measurement.load.errors.get(_OVERLOADED, 0)


def _wrong(record: Record) -> int:
    """All but what a pod answers to more load than it can take: that is right, though not quick work."""
    load = record.measurement.load
    errors = sum(n for code, n in load.errors.items() if code != _OVERLOADED)
    return load.lost + load.duplicates + load.replayed + errors
