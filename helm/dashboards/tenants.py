"""The dashboard of tenants."""

from dashboards.outcomes import LIMITED, REFUSED
from dashboards.panels import lines, rate, select

PANELS = [
    lines(
        "Requests by tenant",
        [(rate("router_decisions_total", "tenant"), "{{tenant}}")],
        "reqps",
        "Tenants of ROUTER_METRICS_TENANTS have their own line; the rest is `other`.",
        12,
    ),
    lines(
        "Refused share",
        [
            (
                f"{rate('router_decisions_total', 'tenant', REFUSED)} / {rate('router_decisions_total', 'tenant')}",
                "{{tenant}}",
            )
        ],
        "percentunit",
        "Share of a tenant's own requests that are refused.",
        12,
    ),
    lines(
        "Refused by limits",
        [
            (
                rate("router_decisions_total", "tenant, outcome", LIMITED),
                "{{tenant}} {{outcome}}",
            )
        ],
        "reqps",
        "The limit's id is in the audit log.",
        12,
    ),
    lines(
        "Fullest limit",
        [
            (
                f"max by (tenant, scope, resource) (router_limit_used_ratio{select()}) > 0",
                "{{tenant}} {{scope}} {{resource}}",
            )
        ],
        "percentunit",
        "Fullest limit of each tenant in use. At 100 %, the next request is refused or goes to another provider.",
        12,
    ),
    lines(
        "No provider fits",
        [(rate("router_decisions_total", "tenant", 'outcome="decision_failed"'), "{{tenant}}")],
        "reqps",
        "Refusals because of breakers, drains and full providers.",
        12,
    ),
    lines(
        "Replays", [(rate("router_decisions_total", "tenant", 'outcome="replayed"'), "{{tenant}}")], "reqps", "Repeats."
    ),
    lines(
        "Policy loads",
        [
            (rate("router_policy_reloads_total", "cause"), "{{cause}}"),
            (rate("router_policy_load_failures_total"), "failed"),
        ],
        "ops",
        "By cause.",
    ),
    lines(
        "Policy cache",
        [
            (f"max(router_policy_cache_entries{select()})", "tenants in a pod"),
            (f"max(router_policy_revision_skew{select()})", "of another revision than the store"),
        ],
        "none",
        "The fullest pod.",
    ),
    lines(
        "Policy cache size",
        [(f"max(router_policy_cache_bytes{select()})", "fullest pod")],
        "bytes",
        "Bound: ROUTER_POLICY_CACHE_MAX_BYTES.",
    ),
]
