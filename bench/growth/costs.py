"""What a decision of a shape costs beside one of the base, in microseconds of CPU, interleaved within rounds."""

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from msgspec import Struct

from bench.growth.shapes import BASE, SHAPES, Shape
from bench.measure import Measurement, measure
from bench.processes import BenchFailed, Placement
from bench.stack import SUBJECT, Stack
from router.store.keys import Keys

_PATIENT = {"ROUTER_STORE_DEADLINE": "1s"}
"""A machine that does other work as well must not make a measurement fail; what a decision costs is the same."""
_AUDIT_SCRIPT = "for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'r', ARGV[2]) end"
_AUDIT_BYTES = 200
"""An entry of the bench's workload takes about as much."""
_AUDIT_CHUNK = 10_000


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
    instructions: float | None = None
    """Of the script for a row, as a ratio to the base; None: the script does the same."""
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
        env=_PATIENT,
    )
    try:
        stack.start()
        if shape.audit:
            _fill_audit(stack, shape)
    except BaseException:
        stack.stop()
        raise
    return stack


def _fill_audit(stack: Stack, shape: Shape) -> None:
    """Long audit logs, one for each tenant, written inside Redis: under the names that a decision of each uses."""
    fill, record = stack.redis.register_script(_AUDIT_SCRIPT), b"\1" * _AUDIT_BYTES
    for key in audit_keys(shape):
        for _ in range(shape.audit // shape.tenants // _AUDIT_CHUNK):
            fill(keys=[key], args=[_AUDIT_CHUNK, record])
    stack.keep()


def audit_keys(shape: Shape) -> Iterator[bytes]:
    """The audit logs of all tenants of a shape."""
    names = Keys()
    for number in range(shape.tenants):
        yield names.tenant(f"tenant-{number:05d}").audit


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
    generator, times = stack.generator, (effort.warmup_s, effort.measure_s)
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
