"""A line chart as SVG text, readable on a light and on a dark page."""

from html import escape
from itertools import pairwise
from math import ceil, floor, log10

from msgspec import Struct

WIDTH, HEIGHT = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 136, 40, 48
_COLOURS = ("#3b82c4", "#c8741f", "#3f9d6b", "#a06cc4")
"""Mid tones: each has a contrast of at least 3 to white and to near black."""
_INK, _GRID = "#7d8590", "#7d859040"
_STYLE = "font: 12px system-ui, sans-serif"
_TICKS = 5


class Series(Struct, frozen=True):
    """One line: its name and its points, in the order of x."""

    name: str
    points: list[tuple[float, float]]


class Chart(Struct, frozen=True):
    """Lines over one x axis. A logarithmic axis needs values above 0."""

    title: str
    x_title: str
    y_title: str
    series: list[Series]
    log_x: bool = False
    log_y: bool = False


class _Axis:
    """Values to pixels, and the ticks between."""

    def __init__(self, values: list[float], first: float, last: float, *, log: bool) -> None:
        self._log = log
        low, high = min(values), max(values)
        self.ticks = _decades(low, high) if log else _steps(high)
        if log:
            low, high = min(low, self.ticks[0]), max(high, self.ticks[-1])
        else:
            low, high = 0.0, max(high, self.ticks[-1])
        self._low, self._span = self._scaled(low), (self._scaled(high) - self._scaled(low)) or 1.0
        self._first, self._last = first, last

    def _scaled(self, value: float) -> float:
        return log10(value) if self._log else value

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self._first + (self._scaled(value) - self._low) / self._span * (self._last - self._first)


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten around the values; powers alone if that is many."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    fine = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    first = max(n for n, tick in enumerate(fine) if tick <= low)
    last = min((n for n, tick in enumerate(fine) if tick >= high), default=len(fine) - 1)
    found = fine[first : last + 1]
    return found if len(found) <= 2 * _TICKS else [10.0**p for p in powers]


def _steps(high: float) -> list[float]:
    """0 and some round steps up to the first one that is not below the largest value."""
    if high <= 0:
        return [0.0, 1.0]
    power: float = 10.0 ** floor(log10(high / _TICKS))
    step = next(m * power for m in (1, 2, 5, 10) if high / (m * power) <= _TICKS)
    return [n * step for n in range(ceil(high / step - 1e-9) + 1)]


def _said(value: float) -> str:
    """A tick's label."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:g}"


def svg(chart: Chart) -> str:
    """The chart. Text that is not a number is escaped."""
    xs = [x for s in chart.series for x, _ in s.points]
    ys = [y for s in chart.series for _, y in s.points]
    if not xs:
        raise ValueError(f"{chart.title}: there is nothing to draw")
    x = _Axis(xs, _LEFT, WIDTH - _RIGHT, log=chart.log_x)
    y = _Axis(ys, HEIGHT - _BOTTOM, _TOP, log=chart.log_y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="{_STYLE}">',
        f"<title>{escape(chart.title)}</title>",
        _text(_LEFT, 20, chart.title, weight="600"),
        *(_grid(y.at(tick), _said(tick)) for tick in y.ticks),
        *(_text(x.at(tick), HEIGHT - _BOTTOM + 18, _said(tick), anchor="middle") for tick in x.ticks),
        _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 10, chart.x_title, anchor="middle"),
        _text(_LEFT, 35, chart.y_title),
        *_lines(chart, x, y),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _grid(at: float, label: str) -> str:
    line = f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{_GRID}"/>'
    return line + _text(_LEFT - 8, at + 4, label, anchor="end")


def _lines(chart: Chart, x: _Axis, y: _Axis) -> list[str]:
    parts: list[str] = []
    labels = _spread([y.at(s.points[-1][1]) for s in chart.series])
    for s, colour, label_at in zip(chart.series, _COLOURS, labels, strict=False):
        at = [(x.at(px), y.at(py)) for px, py in s.points]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in at)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in at]
        parts.append(_text(WIDTH - _RIGHT + 8, label_at + 4, s.name, colour=colour))
    return parts


def _spread(wanted: list[float], gap: float = 15.0) -> list[float]:
    """Heights of labels near the wanted ones, at least `gap` apart."""
    found = list(wanted)
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    for before, after in pairwise(order):
        found[after] = max(found[after], found[before] + gap)
    return found


def _text(x: float, y: float, said: str, *, anchor: str = "start", weight: str = "400", colour: str = _INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f"<text {place}>{escape(said)}</text>"
