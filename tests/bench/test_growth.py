"""The shapes whose costs are compared: each is the workload changed in one thing."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
from redis import Redis

from bench.cluster import start_cluster
from bench.growth import pod
from bench.growth.costs import Cost, Grown, typical
from bench.growth.shapes import BASE, SHAPES, Shape, audit_key, counted
from bench.growth.table import table
from bench.processes import HOST
from bench.pyclient import read_templates
from bench.rows import Calls, planned_from
from router.domain.decide.request import DecideRequest
from router.domain.policy.document import parse
from router.domain.policy.model import StoredPolicy
from router.wire.request.decide import decode

_KINDS = (
    "limits",
    "user_limit",
    "candidates",
    "pins",
    "push",
    "audit",
    "pods",
    "primaries",
    "tenants",
    "policies",
    "zipf",
)


@pytest.mark.parametrize("shape", [BASE, *SHAPES], ids=lambda s: f"{s.group} {s.name}")
def test_a_shape_is_the_workload_changed_in_one_thing(shape: Shape) -> None:
    """Its policy compiles to what its name says, and a request of it is decoded and planned by that policy."""
    changed = [k for k in _KINDS if getattr(shape, k) != getattr(BASE, k)]
    assert len(changed) == {"base": 0}.get(shape.group, 1) or changed == ["tenants", "zipf"]
    policy = parse(shape.document()).policy
    assert (len(policy.limits), len(policy.providers)) == (shape.limits, shape.candidates)
    assert (policy.sticky is not None) == shape.pins
    stored = StoredPolicy("default", 1, "0" * 16, policy)
    tenants = {f"tenant-{n:05d}": stored for n in range(shape.tenants)}
    ((request, plan),) = planned_from(itertools.islice(shape.requests(1, iter(["r"])), 1), tenants)
    assert len(plan.candidates) >= min(shape.candidates, 2)
    assert request.push_assignment == shape.push


def test_requests_of_a_shape_reach_its_tenants() -> None:
    """Uniformly all of them alike; by Zipf's law the first one most."""
    uniform = next(s for s in SHAPES if s.tenants == 10_000 and not s.zipf)
    zipf = next(s for s in SHAPES if s.zipf)
    names = {}
    for shape in (uniform, zipf):
        decoded = [decode(r, None, None) for r in shape.requests(10_000, itertools.repeat("r"))]
        names[shape.name] = Counter(d.tenant_id for d in decoded if isinstance(d, DecideRequest))
    assert set(names[uniform.name].values()) == {1}
    assert len(names[uniform.name]) == 10_000
    assert names[zipf.name].most_common(1)[0][0] == "tenant-00000"
    assert names[zipf.name]["tenant-00000"] > 500


def test_templates_of_a_shape_have_a_hole_for_the_id(tmp_path: Path) -> None:
    """What the load generator sends is what the wire reads."""
    BASE.write_templates(tmp_path / "t")
    before, after = read_templates(tmp_path / "t")[99]
    decoded = decode(before + b"00000000deadbeef" + after, None, None)
    assert isinstance(decoded, DecideRequest)
    assert decoded.request_id == "00000000deadbeef"


def test_an_audit_log_is_where_decisions_write_theirs() -> None:
    """Under the key that a row of the tenant names."""
    stored = {"tenant-00000": StoredPolicy("default", 1, "0" * 16, parse(BASE.document()).policy)}
    one = Shape(group="t", name="one", tenants=1)
    batch = Calls().batch(planned_from(one.requests(1, iter(["r"])), stored))
    assert audit_key(0) in batch.index


def test_only_shapes_with_other_rows_are_counted() -> None:
    """Tenants and pods change no row; limits, candidates, pins and a long log might."""
    assert set(counted()) == {f"{s.group} {s.name}" for s in (BASE, *SHAPES) if s.group in _COUNTED}


_COUNTED = ("base", "limits", "candidates", "users", "pins", "audit")


def test_the_table_has_ratios_and_says_what_was_not_run() -> None:
    """One line a shape."""
    cost = typical([Cost(40.0, 20.0, 5.0, 30.0), Cost(60.0, 22.0, 5.0, 32.0), Cost(50.0, 21.0, 5.0, 31.0)])
    assert cost == Cost(50.0, 21.0, 5.0, 31.0)
    ran = Grown(
        SHAPES[4],
        base=cost,
        cost=cost,
        ratio=Cost(1.5, 1.25, float("nan"), 1.0),
        pod_instructions=1.3,
        script_instructions=1.4,
    )
    lines = table([ran, Grown(SHAPES[5], not_run="no CPU")]).splitlines()
    assert "| 1.50 | 1.30 | 1.25 | 1.40 | – | 31 |" in lines[2]
    assert "not run: no CPU" in lines[3]
    assert len({line.count("|") for line in lines}) == 1


def test_a_cluster_agrees_on_its_slots(servers: None, tmp_path: Path) -> None:
    """Every key has a node before a pod starts."""
    nodes = start_cluster(tmp_path, "any", 2)
    try:
        with Redis(HOST, nodes[0][1]) as redis:
            ranges = redis.execute_command("CLUSTER", "SLOTS")
    finally:
        for process, _ in nodes:
            process.stop()
    assert sum(last - first + 1 for first, last, *_ in ranges) == 16_384


@pytest.mark.parametrize("shape", counted().values(), ids=lambda s: f"{s.group} {s.name}")
def test_one_pod_can_serve_every_shape(shape: Shape) -> None:
    """Each shape's requests come from tenants of its own, which have its policy."""
    tenants = pod.stored(shape, 7)
    decoded = [decode(r, None, None) for r in itertools.islice(pod.requests(shape, 7, itertools.count()), 50)]
    names = {d.tenant_id for d in decoded if isinstance(d, DecideRequest)}
    assert names <= set(tenants)
    assert all(name.startswith("shape-07-") for name in tenants)
    assert {len(p.policy.limits) for p in tenants.values()} == {shape.limits}
