"""The dashboard of fleet: requests, answers, latency and limits."""

from dashboards.outcomes import FAILED, OVERLOADED, REFUSED
from dashboards.panels import lines, panel, quantile, rate, select, stat

PANELS = [
    stat("Pods ready", f"sum(router_ready{select()})", "none", "Pods whose /readyz says so."),
    stat(
        "Requests/s", f"{rate('router_decisions_total')} + {rate('router_shed_total')}", "reqps", "Answered and shed."
    ),
    stat(
        "Answered",
        f"1 - ({rate('router_shed_total', more=OVERLOADED)}"
        f" + ({rate('router_decisions_total', more=FAILED)} or vector(0)))"
        f" / ({rate('router_decisions_total')} + {rate('router_shed_total', more=OVERLOADED)})",
        "percentunit",
        "Share of answers that are neither shed, unavailable nor internal errors. Requests beyond a tenant's share are "
        "left out. The objective is 99.9 %.",
    ),
    stat("p99", quantile(0.99, "router_decision_seconds"), "s", "The objective is 10 ms."),
    stat("Redis unavailable", f"max(router_store_breaker_open{select()})", "none", "1: pods answer by on_store_error."),
    stat("CP gate open", f"min(router_gate_open{select()})", "none", "0: a pod runs as CP1 baseline."),
    lines("Answers", [(rate("router_decisions_total", "outcome"), "{{outcome}}")], "reqps", "By outcome."),
    lines("Reasons", [(rate("router_decisions_total", "reason"), "{{reason}}")], "reqps", "Why this provider."),
    lines(
        "Refusals",
        [
            (rate("router_decisions_total", "outcome", REFUSED), "{{outcome}}"),
            (rate("router_shed_total", "cause"), "shed: {{cause}}"),
        ],
        "reqps",
        "Codes of docs/REFERENCE.md; shed are refused before they are read.",
    ),
    panel(
        "heatmap",
        "Latency",
        [(f"sum by (le) (increase(router_decision_seconds_bucket{select()}[$__rate_interval]))", "{{le}}")],
        "s",
        "From a request's arrival in the pod to its answer.",
        12,
    ),
    lines(
        "Latency quantiles",
        [(quantile(q, "router_decision_seconds"), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99, 0.999)],
        "s",
        "Over all pods.",
        12,
    ),
    lines(
        "Breaker states",
        [(f"max by (state) (router_breakers{select()})", "{{state}}")],
        "none",
        "Of providers, of tenants in use; forced: by an operator. Which ones: `router breaker list`.",
    ),
    lines(
        "Breaker changes",
        [(f"sum by (to) (increase(router_breaker_transitions_total{select()}[5m]))", "{{to}}")],
        "none",
        "In five minutes, by new state. Which ones: `router audit query --action breaker`.",
    ),
    lines(
        "Limits near exhaustion",
        [
            (
                f"max by (scope, resource) (router_limit_used_ratio{select()}) > 0",
                "{{scope}} {{resource}}",
            ),
        ],
        "percentunit",
        "How full the fullest limit of each kind is, of tenants in use; limits of users are not measured.",
    ),
    lines(
        "Limits nine tenths full",
        [(f"max by (scope, resource) (router_limits_near{select()}) > 0", "{{scope}} {{resource}}")],
        "none",
        "Number by kind. The dashboard for tenants shows whose.",
    ),
    lines(
        "Refused by limits",
        [
            (f"{rate('router_limit_refusals_total', 'scope, resource')} > 0", "{{scope}} {{resource}}"),
            (rate("router_shadow_limit_hits_total"), "shadow limit would refuse"),
        ],
        "reqps",
        "Limits of users included. `details.limit_id` and the audit log name the limit.",
    ),
    lines("Pins", [(rate("router_pins_total", "state"), "{{state}}")], "reqps", "New, held, left."),
    lines(
        "In flight",
        [(f"sum by (pod, instance) (router_in_flight{select()})", "{{pod}} {{instance}}")],
        "none",
        "Near ROUTER_MAX_IN_FLIGHT a pod sheds: add replicas.",
    ),
    lines(
        "Redis round trips",
        [
            (quantile(q, "router_store_call_seconds", more='script="decide"'), f"decide p{q * 100:g}")
            for q in (0.5, 0.99)
        ],
        "s",
        "One call for all requests that wait. By script: dashboard Redis and NATS.",
    ),
    lines(
        "Loop lag p99",
        [(quantile(0.99, "router_loop_lag_seconds", "pod, instance"), "{{pod}} {{instance}}")],
        "s",
        "How late a timer runs; above 50 ms, code blocks the loop.",
    ),
    lines(
        "CPU",
        [
            (
                f"sum by (pod, instance) (rate(process_cpu_seconds_total{select()}[$__rate_interval]))",
                "{{pod}} {{instance}}",
            )
        ],
        "percentunit",
        "A pod uses one core.",
    ),
    lines(
        "Memory",
        [(f"sum by (pod, instance) (process_resident_memory_bytes{select()})", "{{pod}} {{instance}}")],
        "bytes",
        "Resident.",
    ),
]
