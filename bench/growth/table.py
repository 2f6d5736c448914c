"""The growth of costs as one Markdown table."""

from math import isfinite

from bench.growth.costs import Effort, Grown

_HEAD = (
    "| what | shape | pod CPU | pod instructions | Redis CPU | script instructions | NATS CPU | rows a call "
    "| what to expect |\n|---|---|---|---|---|---|---|---|---|"
)


def table(found: list[Grown]) -> str:
    """Every shape as ratios to the base."""
    return "\n".join([_HEAD, *map(_line, found)])


def base(found: list[Grown]) -> str:
    """What the ratios are of."""
    costs = [g.base for g in found if g.base is not None and g.shape.group != "pods"]
    if not costs:
        return "The base was not measured."
    middle = sorted(costs, key=lambda c: c.pod_us)[len(costs) // 2]
    return (
        f"A decision of the base costs {middle.pod_us:.0f} µs of pod CPU, {middle.redis_us:.0f} µs of Redis CPU and "
        f"{middle.nats_us:.0f} µs of NATS CPU."
    )


def conditions(effort: Effort) -> str:
    """How it was measured."""
    return (
        f"{effort.rounds} rounds of {effort.measure_s:g} s, {effort.outstanding} requests outstanding; pods share "
        f"{effort.rate:,} requests a second. Each shape is measured beside the base in the same round."
    )


def _line(grown: Grown) -> str:
    shape, ratio = grown.shape, grown.ratio
    if ratio is None:
        return f"| {shape.group} | {shape.name} | not run: {grown.not_run} | | | | | | {shape.grows} |"
    cost = grown.cost
    assert cost is not None
    rows = f"{cost.rows_per_call:.0f}" if cost.rows_per_call else "–"
    cells = [_said(ratio.pod_us), _said(grown.pod_instructions)]
    cells += [_said(ratio.redis_us), _said(grown.script_instructions), _said(ratio.nats_us), rows]
    return f"| {shape.group} | {shape.name} | {' | '.join(cells)} | {shape.grows} |"


def _said(ratio: float | None) -> str:
    """A ratio; none where nothing was counted, or the base took less than a clock tick."""
    return "–" if ratio is None or not isfinite(ratio) else f"{ratio:.2f}"
