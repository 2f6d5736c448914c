"""The Grafana dashboards, as data: what each panel asks and in which unit. `helm/generate.py` writes them as JSON."""

import json
from typing import Any

FLEET = '{namespace=~"$namespace",job=~"$job"}'
WIDTH = 24

Panel = dict[str, Any]


def select(more: str = "") -> str:
    """The label selector of every query; `more` is added to it."""
    return FLEET if not more else FLEET[:-1] + f",{more}}}"


def rate(metric: str, by: str = "", more: str = "") -> str:
    """Per second, over the fleet or by labels."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{select(more)}[$__rate_interval]))"


def quantile(q: float, metric: str, by: str = "", more: str = "") -> str:
    """A quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{select(more)}[$__rate_interval])))"


def panel(kind: str, title: str, queries: list[tuple[str, str]], unit: str, about: str, width: int = 8) -> Panel:
    """One panel; `queries` are (expression, legend)."""
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"w": width, "h": 4 if kind == "stat" else 8, "x": 0, "y": 0},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "expr": expression,
                "legendFormat": legend,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                **({"format": "heatmap"} if kind == "heatmap" else {}),
            }
            for n, (expression, legend) in enumerate(queries)
        ],
        **_OPTIONS[kind],
    }


_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {"options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"}}},
    "stat": {"options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}},
    "heatmap": {
        "options": {"calculate": False, "yAxis": {"unit": "s"}, "color": {"mode": "scheme", "scheme": "Blues"}}
    },
}


def lines(title: str, queries: list[tuple[str, str]], unit: str, about: str, width: int = 8) -> Panel:
    """Curves over time."""
    return panel("timeseries", title, queries, unit, about, width)


def stat(title: str, query: str, unit: str, about: str) -> Panel:
    """One number, now."""
    return panel("stat", title, [(query, "")], unit, about, 4)


FAILED = 'outcome=~"unavailable|service_overloaded|internal"'
LIMITED = 'outcome=~"rate_limit_exceeded|quota_exceeded"'
OVERLOADED = 'cause!~"tenant|loading"'
REFUSED = 'outcome!~"decided|replayed|degraded"'

FLEET_PANELS = [
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

TENANT_PANELS = [
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

WORK_PANELS = [
    stat("Workers", f"max(router_workers{select()})", "none", "Heard of in the last minute."),
    stat("Usage in the outbox", f"max(router_usage_reconciliation{select()})", "none", "Drains to 0."),
    stat(
        "Streams that differ",
        f"max(router_stream_differences{select()})",
        "none",
        "Differences of streams from the settings; the log and `router selftest` name them.",
    ),
    stat(
        "Violations",
        f"sum(increase(router_isolation_violations_total{select()}[1h]))",
        "none",
        "Results that named another tenant's task, in an hour.",
    ),
    lines(
        "Assignments",
        [
            (rate("router_assignments_published_total"), "published"),
            (rate("router_assignments_timed_out_total"), "deadline passed"),
        ],
        "ops",
        "Retries included.",
    ),
    lines("Results", [(rate("router_results_settled_total", "status"), "{{status}}")], "ops", "Settled attempts."),
    lines(
        "Refused results", [(rate("router_results_refused_total", "reason"), "{{reason}}")], "ops", "Settled nothing."
    ),
    lines(
        "Usage events",
        [(rate("router_usage_settled_total"), "settled"), (rate("router_usage_published_total"), "published")],
        "ops",
        "Settled and published events: the two lines should be equal.",
    ),
    lines(
        "Dead letters",
        [
            (rate("router_dead_letters_total", "source"), "by {{source}}"),
            (rate("router_redriven_total", "stream"), "{{stream}} sent again"),
        ],
        "ops",
        "New dead letters, and redriven ones.",
    ),
    lines(
        "Extensions",
        [
            (f"sum(router_pipelines{select()})", "requests in pipelines"),
            (f"sum by (cause) (increase(router_decisions_undone_total{select()}[5m]))", "undone: {{cause}}"),
        ],
        "none",
        "Requests with pre, validators or post; decisions undone in five minutes.",
    ),
    lines("Heartbeats", [(rate("router_worker_heartbeats_total", "status"), "{{status}}")], "ops", "Of workers."),
    lines(
        "Consumer lag",
        [(f"max by (stream) (router_consumer_lag{select()})", "{{stream}}")],
        "none",
        "Messages that are not delivered, or not acknowledged.",
    ),
    lines("Redeliveries", [(rate("router_redeliveries_total", "stream"), "{{stream}}")], "ops", "Delivered again."),
    lines("Alerts", [(rate("router_alerts_raised_total", "condition"), "{{condition}}")], "ops", "Raised by the pods."),
]

SERVER_PANELS = [
    stat("Redis unavailable", f"max(router_store_breaker_open{select()})", "none", "1: away."),
    stat("NATS connected", f"min(router_nats_connected{select()})", "none", "0: a pod has none."),
    stat(
        "Decide call p99",
        quantile(0.99, "router_store_call_seconds", more='script="decide"'),
        "s",
        "Redis as pods measure it.",
    ),
    stat("NATS round trip", f"max(router_nats_rtt_seconds{select()})", "s", "Slowest pod."),
    lines(
        "Redis round trips p99",
        [(quantile(0.99, "router_store_call_seconds", "script"), "{{script}}")],
        "s",
        "From send to reply, by script.",
        12,
    ),
    lines(
        "Calls",
        [(f"sum by (script) (rate(router_store_call_seconds_count{select()}[$__rate_interval]))", "{{script}}")],
        "ops",
        "Scripts run.",
        12,
    ),
    lines(
        "Requests in one call",
        [(quantile(q, "router_batch_rows"), f"p{q * 100:g}") for q in (0.5, 0.99)],
        "none",
        "With more load, batches are larger, and a decision costs less CPU.",
    ),
    lines(
        "Redis faults",
        [
            (rate("router_store_timeouts_total"), "deadline missed"),
            (rate("router_store_errors_total"), "errors"),
            (rate("router_store_late_rows_total"), "late rows"),
            (rate("router_store_row_faults_total"), "row faults"),
        ],
        "ops",
        "Normally all are zero.",
    ),
    lines(
        "Deferred audit, reseeds, clock steps",
        [
            (f"sum(router_audit_deferred{select()})", "records waiting"),
            (f"sum(increase(router_store_reseeded_total{select()}[1h]))", "reseeds in an hour"),
            (f"sum(increase(router_store_clock_steps_total{select()}[1h]))", "clock steps in an hour, over pods"),
        ],
        "none",
        "Degraded decisions whose audit record waits for Redis; seeds of an emptied store; steps of Redis' clock.",
    ),
    lines("Publishes", [(rate("router_publishes_total", "outcome"), "{{outcome}}")], "ops", "JetStream."),
    lines(
        "Connections",
        [
            (f"sum(increase(router_nats_connects_total{select()}[5m]))", "made in 5 min"),
            (rate("router_nats_dropped_total"), "messages dropped/s"),
        ],
        "none",
        "NATS.",
    ),
    lines(
        "Backpressure",
        [(f"max(router_intake_backpressure_active{select()})", "active")],
        "none",
        "The flag that gateways read.",
    ),
    lines("CP gate", [(rate("router_cp_fallback_total", "reason"), "{{reason}}")], "ops", "Fallbacks to the baseline."),
]

AUDIT_PANELS = [
    stat(
        "Redis memory", f"max(router_store_memory_share{select()})", "percentunit", "Of maxmemory, on the fullest node."
    ),
    stat("Keys", f"sum(router_store_keys{select()})", "none", "Of all kinds."),
    stat(
        "Sampled",
        f"max(router_store_sampled_share{select()})",
        "percentunit",
        "Share of all keys in the sample behind the figures by kind: at 100 % they are exact.",
    ),
    stat(
        "Audit entries/s",
        f"sum(rate(router_audit_appended_total{select()}[5m]))",
        "ops",
        "Entries written; each log is checked once a minute.",
    ),
    stat(
        "Export lag",
        f"max(router_audit_export_lag_share{select()})",
        "percentunit",
        "Lag of the log that is furthest behind, as a share of ROUTER_AUDIT_MAX_LEN; at 100 %, entries are cut before "
        "they are exported.",
    ),
    stat(
        "Violations",
        f"sum(increase(router_isolation_violations_total{select()}[1h]))",
        "none",
        "Messages that named another tenant, in an hour.",
    ),
    lines(
        "Memory by kind of key",
        [(f"max by (kind) (router_store_key_bytes{select()})", "{{kind}}")],
        "bytes",
        "Estimated from a sample; alert above ROUTER_STORE_KIND_MAX_BYTES. `router tenant show` has a tenant's keys.",
        12,
    ),
    lines(
        "Keys by kind",
        [(f"max by (kind) (router_store_keys{select()})", "{{kind}}")],
        "none",
        "Estimated from the same sample.",
        12,
    ),
    lines(
        "Audit entries by tenant",
        [(f"sum by (tenant) (rate(router_audit_appended_total{select()}[5m]))", "{{tenant}}")],
        "ops",
        "Tenants of ROUTER_METRICS_TENANTS have their own line; the rest is `other`.",
    ),
    lines(
        "Audit entries cut",
        [(rate("router_audit_cut_total", "by"), "by {{by}}")],
        "ops",
        "Entries cut by age, as intended, and by length: those are younger than ROUTER_AUDIT_RETENTION_DAYS.",
    ),
    lines(
        "Audit export",
        [
            (rate("router_audit_exported_total"), "stored"),
            (rate("router_audit_export_failures_total"), "failed, tried again"),
            (rate("router_audit_export_lost_total"), "cut unread"),
        ],
        "ops",
        "Exported entries, and failed runs.",
    ),
    lines(
        "Reads of audit logs",
        [(quantile(q, "router_audit_read_seconds"), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)],
        "s",
        "One bounded read by a pod. Reads of `router audit query` are not included.",
    ),
    lines(
        "Refusals without a record",
        [
            (rate("router_audit_unrecorded_total"), "above ROUTER_QUOTA_AUDIT_RATE"),
            (rate("router_audit_unknown_tenants_total", "outcome"), "of unknown tenants, {{outcome}}"),
        ],
        "ops",
        "`router audit query --outcome audit_quota`, `router audit unknown`.",
    ),
    lines(
        "Violations by door",
        [(f"sum by (door) (increase(router_isolation_violations_total{select()}[5m]))", "{{door}}")],
        "none",
        "In five minutes. Normally all are zero.",
    ),
    lines(
        "Admin acts",
        [(f"sum by (act, outcome) (increase(router_admin_acts_total{select()}[5m]))", "{{act}} {{outcome}}")],
        "none",
        "In five minutes, over NATS; forbidden: a wrong token, or too low a role.",
    ),
]

DASHBOARDS = {
    "router-fleet": ("Router: fleet", FLEET_PANELS),
    "router-tenants": ("Router: tenants", TENANT_PANELS),
    "router-work": ("Router: dispatch and usage", WORK_PANELS),
    "router-servers": ("Router: Redis and NATS", SERVER_PANELS),
    "router-audit": ("Router: audit and store", AUDIT_PANELS),
}


def placed(panels: list[Panel]) -> list[Panel]:
    """Left to right, row by row, with ids."""
    x = y = height = 0
    found = []
    for number, one in enumerate(panels, 1):
        position = dict(one["gridPos"])
        if x + position["w"] > WIDTH:
            x, y, height = 0, y + height, 0
        found.append(one | {"id": number, "gridPos": position | {"x": x, "y": y}})
        x += position["w"]
        height = max(height, position["h"])
    return found


def variable(name: str) -> dict[str, Any]:
    """A choice among the values of a label of the pods."""
    query = f"label_values(router_ready, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard(uid: str) -> str:
    """One dashboard as Grafana imports it."""
    title, panels = DASHBOARDS[uid]
    document = {
        "uid": uid,
        "title": title,
        "tags": ["router-fleet"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["router-fleet"], "title": "Router", "asDropdown": True}],
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
                variable("namespace"),
                variable("job"),
            ]
        },
        "panels": placed(panels),
    }
    return json.dumps(document, indent=1) + "\n"
