"""Whether a measured series is flat: the median of its slopes, so that one odd sample changes nothing."""

from collections.abc import Sequence
from itertools import combinations
from statistics import median

from msgspec import Struct


class Series(Struct, frozen=True):
    """Values over time. `allowed`: what it may grow by from the first sample to the last and still be flat."""

    name: str
    at: Sequence[float]
    values: Sequence[float]
    allowed: float

    @property
    def growth(self) -> float:
        """What the median slope adds from the first sample to the last. Needs two samples."""
        points = list(zip(self.at, self.values, strict=True))
        slopes = [(v2 - v1) / (t2 - t1) for (t1, v1), (t2, v2) in combinations(points, 2) if t2 > t1]
        return median(slopes) * (self.at[-1] - self.at[0])

    @property
    def flat(self) -> bool:
        """A series that shrinks is flat."""
        return self.growth <= self.allowed


def table(series: Sequence[Series]) -> str:
    """As Markdown."""
    lines = ["| series | first | last | growth | allowed | flat |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {s.name} | {s.values[0]:.4g} | {s.values[-1]:.4g} | {s.growth:.4g} | {s.allowed:.4g} "
        f"| {'yes' if s.flat else '**no**'} |"
        for s in series
    ]
    return "\n".join(lines)
