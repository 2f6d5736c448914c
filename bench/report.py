"""The figures of a run as tables for people and as JSON for machines."""

import os
import platform
import sysconfig
from collections.abc import Sequence

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.bars import Bar, best_run, cpu_us, rate, ratio, select, typical
from bench.processes import Placement, server_binary, server_version
from bench.rounds import Effort, Record
from bench.store.audit import QueryCost
from bench.store.capacity import Figure
from bench.store.capacity import table as capacity_table
from bench.store.memory import KeyCost


class Conditions(Struct, frozen=True):
    """Where and how it was measured."""

    cpus: int
    pod_cpu: str
    rest_cpus: str
    python: str
    server: str
    generator: str
    effort: Effort

    @property
    def text(self) -> str:
        """In words."""
        shared = "Valkey, NATS and the load generator share"
        return (
            f"{self.cpus} CPUs; the pod (and what it is compared with) runs on CPU {self.pod_cpu}; "
            f"{shared} CPU {self.rest_cpus}. Python {self.python}. Redis: {self.server}. "
            f"Load: {self.generator}. "
            f"{self.effort.rounds} round(s); figures are medians over them."
        )


class Run(Struct, frozen=True):
    """All of a run."""

    conditions: Conditions
    records: list[Record]
    memory: list[KeyCost]
    audit: list[QueryCost]
    capacity: list[Figure]
    bars: list[Bar]


def conditions(placement: Placement, effort: Effort, *, native: bool) -> Conditions:
    """The conditions of this machine."""
    generator = (
        "C client, 4 connections" if native else "Python client (no C compiler found): it may be the limit above 20k/s"
    )
    cpus = os.cpu_count() or 1
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return Conditions(
        cpus=cpus,
        pod_cpu=placement.pod,
        rest_cpus=placement.rest,
        python=f"{platform.python_version()}, {'with' if optimised else 'without'} profile-guided optimisation",
        server=server_version(server_binary()),
        generator=generator,
        effort=effort,
    )


def show(run: Run, console: Console) -> None:
    """Print everything."""
    console.print(f"\n{run.conditions.text}\n")
    console.print(_closed(run.records))
    console.print(_ceilings(run.records))
    console.print(_open(run.records))
    show_store(run.memory, run.audit, console)
    console.print(capacity_table(run.capacity))
    busiest = max(r.measurement.foreign_cpus for r in run.records)
    if busiest > 0.1:
        console.print(
            f"[yellow]This machine was shared: up to {busiest:.1f} CPUs were busy with something else. "
            "Throughput and latency suffered from it.[/]"
        )
    show_bars(run.bars, console)


def show_store(costs: Sequence[KeyCost], queries: Sequence[QueryCost], console: Console) -> None:
    """Print what keys and audit queries cost."""
    if costs:
        console.print(_memory(costs))
    if queries:
        console.print(_audit(queries))


def show_bars(found: Sequence[Bar], console: Console) -> None:
    """Print what was promised."""
    console.print(_bars(found))


def progress(record: Record) -> str:
    """One line about a record that has just come."""
    m = record.measurement
    costs = " ".join(f"{name} {us:.1f}" for name, us in m.cpu_us.items() if us >= 0.05)
    faults = f" [red]{m.faults}[/]" if m.faults else ""
    latency = f"p50 {m.load.latency_us.p50 / 1000:.2f} p99 {m.load.latency_us.p99 / 1000:.2f} ms, " if m.load.ok else ""
    busy = f" [yellow](others: {m.foreign_cpus:.1f} CPU)[/]" if m.foreign_cpus > 0.1 else ""
    return (
        f"round {record.round} {record.series} {record.mode} {record.amount}: {m.load.rate:,.0f}/s, "
        f"{latency}CPU µs: {costs}{busy}{faults}"
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _ms(records: Sequence[Record], point: str) -> str:
    return f"{typical(records, lambda r: float(getattr(r.measurement.load.latency_us, point))) / 1000:.2f}"


def _amounts(records: Sequence[Record], series: str, mode: str) -> list[int]:
    return sorted({r.amount for r in records if r.series == series and r.mode == mode})


def _closed(records: Sequence[Record]) -> Table:
    table = _table(
        "Closed loop: decisions/s and CPU µs per decision",
        *("outstanding", "pod/s", "rows/call", "pod µs", "Redis µs", "NATS µs", "p50 ms", "p99 ms"),
        *("naive/s", "naive µs", "Redis µs", "pod ÷ naive"),
    )
    for n in _amounts(records, "pod", "closed"):
        pod, naive = select(records, "pod", "closed", n), select(records, "naive", "closed", n)
        table.add_row(
            *(f"{n}", f"{typical(pod, rate):,.0f}", f"{typical(pod, lambda r: r.measurement.rows_per_call):.1f}"),
            *(f"{typical(pod, cpu_us(name)):.1f}" for name in ("pod", "redis", "nats")),
            *(_ms(pod, "p50"), _ms(pod, "p99")),
            *(f"{typical(naive, rate):,.0f}", f"{typical(naive, cpu_us('naive')):.1f}"),
            *(f"{typical(naive, cpu_us('redis')):.1f}", f"{ratio(pod, naive):.1f}×"),
        )
    durable = select(records, "pod-everysec", "closed")
    for n in sorted({r.amount for r in durable}):
        table.add_row(
            f"{n}, AOF everysec",
            *(f"{typical(durable, rate):,.0f}", f"{typical(durable, lambda r: r.measurement.rows_per_call):.1f}"),
            *(f"{typical(durable, cpu_us(name)):.1f}" for name in ("pod", "redis", "nats")),
            *(_ms(durable, "p50"), _ms(durable, "p99"), "", "", "", ""),
        )
    return table


def _ceilings(records: Sequence[Record]) -> Table:
    table = _table("Ceilings", "what", "rows/call", "per second", "Redis µs", "NATS µs", "pod at 256 ÷ this")
    pod = select(records, "pod", "closed", 256)
    names = {
        "script": "the script, one Python caller, ready-made calls, one in flight",
        "script-least": "its commands without a decision: what Redis asks at least",
        "script-user-limit": "the script, the hourly limit each user's",
        "script-busy": "the script, two calls in flight (Redis never waits)",
        "script-one-row": "the script with one row a call, 256 calls pipelined",
    }
    for series, name in names.items():
        found = select(records, series, "script")
        rows = f"{typical(found, lambda r: r.amount):.0f}"
        of = f"{100 * ratio(pod, found):.0f} %"
        table.add_row(name, rows, f"{typical(found, rate):,.0f}", f"{typical(found, cpu_us('redis')):.1f}", "", of)
    echoes = {"echo": "NATS request/reply, stock nats-py responder", "echo-native": "NATS request/reply, C responder"}
    for series, name in echoes.items():
        for n in _amounts(records, series, "closed"):
            found = select(records, series, "closed", n)
            of = f"{100 * ratio(pod, found):.0f} %" if n == 256 else ""
            nats = f"{typical(found, cpu_us('nats')):.1f}"
            table.add_row(f"{name}, {n} outstanding", "", f"{typical(found, rate):,.0f}", "", nats, of)
    return table


def _open(records: Sequence[Record]) -> Table:
    table = _table(
        "Open loop: latency from the moment each request was due, ms",
        *("requests/s", "answered/s", "p50", "p90", "p99", "best run p50", "p99", "worst send delay"),
        *("NATS echo p50", "NATS echo p99", "pod µs", "Redis µs"),
    )
    for n in _amounts(records, "pod", "open"):
        pod, echo = select(records, "pod", "open", n), select(records, "echo", "open", n)
        best = best_run(pod)
        table.add_row(
            *(f"{n:,}", f"{typical(pod, rate):,.0f}", _ms(pod, "p50"), _ms(pod, "p90"), _ms(pod, "p99")),
            *(f"{best.p50 / 1000:.2f}", f"{best.p99 / 1000:.2f}"),
            f"{typical(pod, lambda r: r.measurement.load.late_max_us) / 1000:.2f}",
            *(_ms(echo, "p50"), _ms(echo, "p99")),
            *(f"{typical(pod, cpu_us(name)):.1f}" for name in ("pod", "redis")),
        )
    return table


def _memory(costs: Sequence[KeyCost]) -> Table:
    table = _table("Bytes per key", "key", "server", "keys", "MEMORY USAGE", "used_memory")
    for c in costs:
        table.add_row(c.kind, c.server, f"{c.keys:,}", f"{c.usage:.0f}", "" if c.delta is None else f"{c.delta:.0f}")
    return table


def _audit(costs: Sequence[QueryCost]) -> Table:
    table = _table(
        f"Audit queries: a page of 100 in a log of {costs[0].entries:,} entries, {costs[0].pages} pages each, ms",
        *("query", "entries read", "p50", "p99", "longest round trip"),
    )
    for c in costs:
        table.add_row(c.query, f"{c.read:,}", f"{c.p50_ms:.1f}", f"{c.p99_ms:.1f}", f"{c.longest_read_ms:.1f}")
    return table


def _bars(found: Sequence[Bar]) -> Table:
    table = _table("What was promised", "figure", "measured", "promised", "")
    for b in found:
        table.add_row(
            b.name,
            f"{b.value:.1f} {b.unit}",
            f"{'≥' if b.at_least else '≤'} {b.bound:g} {b.unit}",
            "[green]PASS[/]" if b.holds else "[red]FAIL[/]",
        )
    return table
