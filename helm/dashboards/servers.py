"""The dashboard of Redis and NATS."""

from dashboards.panels import lines, quantile, rate, select, stat

PANELS = [
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
            (rate("router_store_unconfirmed_total"), "not confirmed by replicas"),
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
