"""The dashboard of audit and store."""

from dashboards.panels import lines, quantile, rate, select, stat

PANELS = [
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
