"""The dashboard of dispatch and usage."""

from dashboards.panels import lines, rate, select, stat

PANELS = [
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
