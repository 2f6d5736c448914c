"""The plots of docs/PERFORMANCE.md, from the records of a run of `make bench`."""

from pathlib import Path

from bench.bars import Pick, cpu_us, rate, select, typical
from bench.document.chart import Chart, Series, svg
from bench.rounds import Record

FOLDER = Path(__file__).parents[2] / "docs" / "plots"


def charts(records: list[Record]) -> dict[str, Chart]:
    """File name → chart; medians over the rounds."""
    return {"throughput.svg": _throughput(records), "latency.svg": _latency(records), "batch.svg": _batch(records)}


def write(records: list[Record], folder: Path = FOLDER) -> list[Path]:
    """Write every chart; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, chart in charts(records).items():
        (folder / name).write_text(svg(chart))
        found.append(folder / name)
    return found


def _throughput(records: list[Record]) -> Chart:
    series = [
        Series(
            name, [(n, typical(select(records, kind, "closed", n), rate)) for n in _amounts(records, kind, "closed")]
        )
        for kind, name in (("pod", "one pod"), ("naive", "naive pod"))
    ]
    return Chart("Decisions a second", "requests outstanding", "decisions/s", series, log_x=True)


def _latency(records: list[Record]) -> Chart:
    def points(point: str) -> list[tuple[float, float]]:
        found = []
        for n in _amounts(records, "pod", "open"):
            us = typical(select(records, "pod", "open", n), _latency_us(point))
            found.append((float(n), us / 1000))
        return found

    series = [Series(name, points(name)) for name in ("p50", "p90", "p99")]
    return Chart("Latency by offered load", "requests a second", "ms", series, log_x=True, log_y=True)


def _batch(records: list[Record]) -> Chart:
    def points(process: str) -> list[tuple[float, float]]:
        found = []
        for n in _amounts(records, "pod", "closed"):
            of = select(records, "pod", "closed", n)
            found.append((typical(of, lambda r: r.measurement.rows_per_call), typical(of, cpu_us(process))))
        return sorted(found)

    series = [Series(name, points(process)) for process, name in (("pod", "pod"), ("redis", "Redis"), ("nats", "NATS"))]
    return Chart("CPU per decision by batch size", "decisions in a Redis call", "µs", series, log_x=True)


def _latency_us(point: str) -> Pick:
    return lambda record: float(getattr(record.measurement.load.latency_us, point))


def _amounts(records: list[Record], series: str, mode: str) -> list[int]:
    return sorted({r.amount for r in records if r.series == series and r.mode == mode})
