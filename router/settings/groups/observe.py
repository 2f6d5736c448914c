"""Settings of logs, metrics, alerts and traces."""

from typing import Literal

from router.settings.groups.group import Group
from router.settings.types import HttpUrl, Seconds, Tenants, setting


class Observe(Group):
    """Logs, metrics, traces"""

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", description="Lowest level that is written."
    )
    log_format: Literal["auto", "json", "human"] = setting(
        "auto", description="Format of log lines; auto: human on a terminal, else JSON."
    )
    metrics_tenants: Tenants = setting(
        (),
        description="Tenants with their own metric label, comma-separated; all others share `other`.",
        max_length=100,
    )
    alert_away_s: Seconds = setting(
        3, description="Alert when Redis or NATS is unavailable for this long in total within 30 s.", ge=1, le=30
    )
    alert_calm_s: Seconds = setting(
        30, description="Resolve an alert when its condition has not held for this long.", ge=0, le=3_600
    )
    otlp_endpoint: HttpUrl | None = setting(
        None, description="OTLP/HTTP collector for traces, such as http://collector:4318; none: no traces."
    )
    trace_sample_ratio: float = setting(
        0.05, description="Share of traces that are sampled when the caller has not decided.", ge=0, le=1
    )
