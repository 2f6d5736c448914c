"""The plots: what is drawn is where the figures are, and readable on both backgrounds."""

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.document import chart
from bench.document.chart import Chart, Series, svg
from bench.document.plots import write
from bench.document.sizing import table
from bench.measure import Latency, LoadReport, Measurement
from bench.rounds import Record

_SVG = "{http://www.w3.org/2000/svg}"


def drawn(made: Chart) -> ElementTree.Element:
    """The parsed picture."""
    return ElementTree.fromstring(svg(made))  # noqa: S314 (made here)


@pytest.mark.parametrize("log", [False, True], ids=["linear", "logarithmic"])
@pytest.mark.parametrize(
    "points",
    [
        [(1.0, 10.0), (16.0, 80.0), (256.0, 17_000.0)],
        [(5.0, 3.0)],
        [(0.3, 0.02), (0.4, 0.9)],
        [(1_000.0, 7.0), (20_000.0, 7.0)],
    ],
    ids=["wide", "one point", "below 1", "flat"],
)
def test_points_are_inside_and_in_order(points: list[tuple[float, float]], log: bool) -> None:
    """A larger figure is further right, and higher."""
    picture = drawn(Chart("t", "x", "y", [Series("s", points)], log_x=log, log_y=log))
    dots = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in picture.iter(f"{_SVG}circle")]
    assert len(dots) == len(points)
    assert all(0 <= x <= chart.WIDTH and 0 <= y <= chart.HEIGHT for x, y in dots)
    for (x1, y1), (x2, y2), before, after in zip(dots, dots[1:], points, points[1:], strict=False):
        assert (x1 < x2) == (before[0] < after[0])
        assert (y1 > y2) == (before[1] < after[1])


def test_every_tick_is_a_number_on_its_grid_line() -> None:
    """Between the first and the last one all figures are."""
    picture = drawn(Chart("t", "x", "y", [Series("s", [(1.0, 13.0), (2.0, 87.0)])]))
    texts = [t.text or "" for t in picture.iter(f"{_SVG}text")]
    ticks = {int(t.replace(",", "")) for t in texts if t.replace(",", "").isdigit()}
    assert {0, 20, 40, 60, 80, 100} <= ticks


def test_text_is_escaped_and_names_every_line() -> None:
    """Whatever a series is called, the picture can be read."""
    names = ["a < b", "c & d", '"e"']
    picture = drawn(Chart("x > y", "x", "y", [Series(n, [(1.0, 1.0), (2.0, 2.0)]) for n in names]))
    texts = [(t.text, float(t.attrib["y"])) for t in picture.iter(f"{_SVG}text")]
    assert {n for n, _ in texts} >= {*names, "x > y"}
    heights = sorted(y for n, y in texts if n in names)
    assert all(b - a >= 12 for a, b in pairwise(heights))


def test_nothing_to_draw_is_an_error_that_names_the_chart() -> None:
    """An empty picture would look like a measurement."""
    with pytest.raises(ValueError, match="throughput"):
        svg(Chart("throughput", "x", "y", [Series("s", [])]))


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_lines_and_text_are_readable_on_white_and_on_near_black() -> None:
    """By a contrast of at least 3, and there is no background of their own."""
    picture = svg(Chart("t", "x", "y", [Series(str(n), [(1.0, n + 1.0)]) for n in range(4)]))
    colours = set(re.findall(r'(?:stroke|fill)="(#[0-9a-f]{6})"', picture))
    assert len(colours) == 5
    for colour in colours:
        for page in ("#ffffff", "#0d1117"):
            assert _contrast(_luminance(colour), _luminance(page)) >= 3, (colour, page)
    assert "<rect" not in picture


def record(series: str, mode: str, amount: int, rate: float) -> Record:
    """A measurement with a rate, latencies and costs."""
    report = LoadReport(int(rate), 1, rate, latency_us=Latency(p50=500, p90=900, p99=2_000))
    return Record(series, mode, amount, 1, Measurement(report, {"pod": 40.0, "redis": 20.0, "nats": 5.0}, 10))


def test_a_run_makes_every_plot(tmp_path: Path) -> None:
    """Throughput, latency by offered load, cost by batch size."""
    records = [
        *(record(series, "closed", n, n * 100) for series in ("pod", "naive") for n in (1, 64, 256)),
        *(record("pod", "open", n, n) for n in (1_000, 5_000)),
    ]
    files = write(records, tmp_path)
    assert sorted(f.name for f in files) == ["batch.svg", "latency.svg", "throughput.svg"]
    dots = {f.name: f.read_text().count("<circle") for f in files}
    assert dots == {"throughput.svg": 6, "latency.svg": 6, "batch.svg": 9}


def test_the_size_table_is_in_shares_of_a_core() -> None:
    """5,000 decisions a second at 40 µs keep a fifth of a core busy."""
    lines = table([record("pod", "open", n, n) for n in (1_000, 5_000)]).splitlines()
    assert lines[-1] == "| 5,000/s | 5,000/s | 20 % | 10 % | 2 % | 0.5 | 2.0 |"
    assert len({line.count("|") for line in lines}) == 1
