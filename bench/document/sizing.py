"""What one pod answers, and what it costs then: the table to size a fleet by, and the plots beside it."""

from bench.bars import cpu_us, rate, select, typical
from bench.document import sections
from bench.document.plots import write as write_plots
from bench.report import Run
from bench.rounds import Record

SECTION = "size it"
_COLUMNS = (
    "offered to one pod",
    "answered",
    "pod, of a core",
    "Redis, of a core",
    "NATS, of a core",
    "p50 ms",
    "p99 ms",
)


def written(run: Run) -> None:
    """Write the table and the plots into docs."""
    plots = "\n".join(f"![{path.stem}](plots/{path.name})" for path in write_plots(run.records))
    text = f"{sections.stamp('make bench')} {run.conditions.text}\n\n{table(run.records)}\n\n{plots}"
    sections.write(SECTION, text)


def table(records: list[Record]) -> str:
    """The open loops as Markdown: medians over the rounds."""
    amounts = sorted({r.amount for r in records if r.series == "pod" and r.mode == "open"})
    return "\n".join(
        [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|", *(_line(records, n) for n in amounts)]
    )


def _line(records: list[Record], amount: int) -> str:
    of = select(records, "pod", "open", amount)
    answered = typical(of, rate)
    cells = [f"{amount:,}/s", f"{answered:,.0f}/s"]
    cells += [f"{typical(of, cpu_us(name)) * answered / 10_000:.0f} %" for name in ("pod", "redis", "nats")]
    cells += [f"{typical(of, lambda r: r.measurement.load.latency_us.p50) / 1000:.1f}"]
    cells += [f"{typical(of, lambda r: r.measurement.load.latency_us.p99) / 1000:.1f}"]
    return f"| {' | '.join(cells)} |"
