"""What a decision of a shape costs beside one of the base, in microseconds of CPU, interleaved within rounds."""

from collections.abc import Callable
from pathlib import Path
from statistics import median

from msgspec import Struct

from bench.growth.shapes import BASE, SHAPES, Shape
from bench.measure import Measurement, measure
from bench.processes import BenchFailed, Placement
from bench.stack import PATIENT, SUBJECT, Stack

_TENANTS_READ_A_S = 4_000


class Effort(Struct, frozen=True):
    """`outstanding` of the closed loop; `rate` a second of the open loop that compares numbers of pods."""

    rounds: int = 2
    warmup_s: float = 0.4
    measure_s: float = 1.0
    outstanding: int = 64
    rate: int = 2_000


class Cost(Struct, frozen=True):
    """CPU µs per decision, of all pods and all Redis nodes together; rows a call are unknown in a Cluster."""

    pod_us: float
    redis_us: float
    nats_us: float
    rows_per_call: float


class Grown(Struct, frozen=True):
    """One shape: its cost and the base's, medians over the rounds, and the median ratio within a round."""

    shape: Shape
    base: Cost | None = None
    cost: Cost | None = None
    ratio: Cost | None = None
    pod_instructions: float | None = None
    script_instructions: float | None = None
    """For a row, as ratios to the base; None: they were not counted, or the shape changes no row."""
    not_run: str = ""


def run(folder: Path, effort: Effort, wanted: list[str], say: Callable[[Grown], None]) -> list[Grown]:
    """Measure the shapes of the wanted groups (none named: all)."""
    placement, found = Placement.split(), []
    base = _stack(folder / "base", placement, BASE)
    try:
        for number, shape in enumerate(s for s in SHAPES if not wanted or s.group in wanted):
            found.append(_one(folder / f"shape-{number}", base, shape, effort))
            say(found[-1])
    finally:
        base.stop()
    return found


def _stack(folder: Path, placement: Placement, shape: Shape) -> Stack:
    folder.mkdir()
    stack = Stack(
        folder,
        placement,
        None,
        seed=shape.write_policies,
        templates=shape.write_templates,
        tenants=shape.tenants,
        pods=shape.pods,
        primaries=shape.primaries,
        env=PATIENT,
    )
    try:
        stack.start()
        if shape.audit:
            shape.fill_audit(stack.redis)
            stack.keep()
    except BaseException:
        stack.stop()
        raise
    return stack


def _one(folder: Path, base: Stack, shape: Shape, effort: Effort) -> Grown:
    try:
        stack = _stack(folder, base.placement, shape)
    except (BenchFailed, OSError) as fault:
        return Grown(shape, not_run=_why(fault))
    try:
        pairs = [(_cost(base, shape, effort), _cost(stack, shape, effort)) for _ in range(effort.rounds)]
    except (BenchFailed, OSError) as fault:
        return Grown(shape, not_run=_why(fault))
    finally:
        stack.stop()
    bases, costs = [b for b, _ in pairs], [c for _, c in pairs]
    ratios = [_ratio(c, b) for b, c in pairs]
    return Grown(shape, base=typical(bases), cost=typical(costs), ratio=typical(ratios))


def _why(fault: Exception) -> str:
    return str(fault).strip().splitlines()[-1][:200]


def _cost(stack: Stack, shape: Shape, effort: Effort) -> Cost:
    # Every tenant's policies are read once.
    generator, times = stack.generator, (effort.warmup_s + stack.tenants / _TENANTS_READ_A_S, effort.measure_s)
    open_loop = shape.group == "pods"
    load = generator.open if open_loop else generator.closed
    command = load(SUBJECT, effort.rate if open_loop else effort.outstanding, *times)
    done = measure(command, stack.placement.rest, stack.processes, stack.redis_port)
    stack.wipe()
    if done.faults or not done.load.answered:
        raise BenchFailed(f"not every request was answered well: {done.faults or 'none was answered'}")
    rows = 0.0 if shape.primaries else done.rows_per_call
    return Cost(_all(done, "pod"), _all(done, "redis"), _all(done, "nats"), rows)


def _all(done: Measurement, name: str) -> float:
    return sum(us for process, us in done.cpu_us.items() if process.partition("-")[0] == name)


def _ratio(cost: Cost, base: Cost) -> Cost:
    fields = Cost.__struct_fields__
    return Cost(*(getattr(cost, f) / (getattr(base, f) or float("nan")) for f in fields))


def typical(costs: list[Cost]) -> Cost:
    """The median of each field."""
    return Cost(*(median(getattr(c, f) for c in costs) for f in Cost.__struct_fields__))
