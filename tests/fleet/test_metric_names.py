"""What rules and dashboards ask for is there."""

import re

from tests.chart.queries import expressions, metrics_in
from tests.fleet.harness import Fleet


async def test_every_metric_named_is_in_a_running_pod(fleet: Fleet) -> None:
    """Compared with the families and suffixes that /metrics shows; a renamed metric breaks this, not a dashboard."""
    _, body = await fleet.pods[0].http("/metrics")
    shown: set[str] = {"router_intake_backpressure_active"}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", body.decode(), re.MULTILINE):
        shown |= {name} if kind != "histogram" else {f"{name}_bucket", f"{name}_count", f"{name}_sum"}
    named = {where: metrics_in(expression) for where, expression in expressions().items()}
    assert {where: names - shown for where, names in named.items() if names - shown} == {}
    assert sum(map(len, named.values())) > 100
