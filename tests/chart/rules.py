"""One situation per alert, as promtool's series, on top of a fleet that is well."""

from msgspec import Struct

POD = 'namespace="apps",job="demo",pod="a",instance="i"'


class Case(Struct, frozen=True):
    """`series` replace those of the healthy fleet of the same name and labels; looked at after `minutes`.

    `also` fire too, because the situation is theirs as well. `interval` in minutes stays under Prometheus' lookback of
    five: groups are evaluated in any order, and an alert must still see the recording of the round before.
    """

    series: dict[str, str]
    minutes: int = 15
    also: tuple[str, ...] = ()
    interval: str = "1m"


def of(metric: str, more: str = "") -> str:
    """A series of the pod."""
    return f"{metric}{{{POD}{',' if more else ''}{more}}}"


DECIDED = of("router_decisions_total", 'outcome="decided",reason="weighted",tenant="other"')
FAILED = of("router_decisions_total", 'outcome="unavailable",reason="none",tenant="other"')
QUICK = of("router_decision_seconds_bucket", 'le="0.01"')
ALL = of("router_decision_seconds_bucket", 'le="+Inf"')
COUNT = of("router_decision_seconds_count")
STORE_QUICK = of("router_store_call_seconds_bucket", 'script="decide",le="0.01"')
STORE_ALL = of("router_store_call_seconds_bucket", 'script="decide",le="0.02"')
STORE_INF = of("router_store_call_seconds_bucket", 'script="decide",le="+Inf"')
LAG_QUICK = of("router_loop_lag_seconds_bucket", 'le="0.05"')
LAG_SLOW = of("router_loop_lag_seconds_bucket", 'le="0.1"')
LAG_INF = of("router_loop_lag_seconds_bucket", 'le="+Inf"')
READ_QUICK = of("router_audit_read_seconds_bucket", 'le="0.25"')
READ_SLOW = of("router_audit_read_seconds_bucket", 'le="0.5"')
READ_INF = of("router_audit_read_seconds_bucket", 'le="+Inf"')
CUT = of("router_audit_cut_total", 'by="length"')
LIMIT = of("router_limit_used_ratio", 'scope="tenant",resource="requests",tenant="other"')
SETTLED = of("router_results_settled_total", 'status="success"')
ACKED = of("router_worker_acks_total")
STEADY = "0+60000x{n}"
NOTHING = "0+0x{n}"

WELL: dict[str, str] = {
    **dict.fromkeys((DECIDED, QUICK, ALL, COUNT, STORE_QUICK, STORE_ALL, STORE_INF), STEADY),
    **dict.fromkeys((LAG_QUICK, LAG_SLOW, LAG_INF, READ_QUICK, READ_SLOW, READ_INF), "0+600x{n}"),
    **dict.fromkeys(map(of, ("router_ready", "router_nats_connected", "router_gate_open")), "1+0x{n}"),
    of("router_workers"): "2+0x{n}",
    **dict.fromkeys((of("router_assignments_published_total"), SETTLED, ACKED), "0+600x{n}"),
    **dict.fromkeys(
        map(
            of,
            (
                "router_store_breaker_open",
                "router_store_reseeded_total",
                "router_audit_deferred",
                "router_policy_revision_skew",
                "router_policy_load_failures_total",
                "router_alerts_lost_total",
                "router_usage_reconciliation",
                "router_stream_differences",
                "router_nats_permissions_lost",
                "router_isolation_violations_total",
                "router_reply_subjects_refused_total",
                "router_admin_wrong_tokens_total",
                "router_api_wrong_keys_total",
                "router_audit_export_lag_share",
                "router_audit_export_lost_total",
                "router_audit_unrecorded_total",
            ),
        ),
        NOTHING,
    ),
    **{
        of("router_alerts_raised_total", f'condition="{c}"'): NOTHING
        for c in ("store_kind_large", "cp_state_old", "stream_covers_requests")
    },
    of("router_store_memory_share"): "0.5+0x{n}",
    of("router_nats_rtt_seconds"): "0.001+0x{n}",
    **{of("router_shed_total", f'cause="{c}"'): NOTHING for c in ("full", "tenant", "loading", "stale")},
    CUT: NOTHING,
    of("router_audit_cut_total", 'by="age"'): "0+600x{n}",
    of("router_consumer_lag", 'stream="result"'): NOTHING,
    of("router_consumer_stalls_total", 'stream="result"'): NOTHING,
    of("router_dead_letters_total", 'source="router"'): NOTHING,
    of("router_breaker_transitions_total", 'to="opened"'): NOTHING,
    of("router_cp_fallback_total", 'reason="missing"'): NOTHING,
    of("router_breakers", 'state="open"'): NOTHING,
    LIMIT: "0.5+0x{n}",
}

_ONCE = "0x10 1x{n}"
_HOUR = 70

CASES: dict[str, Case] = {
    # 2 % unanswered: 20 times the budget, over an hour and over five minutes.
    "RouterAnswersBurnFast": Case({FAILED: "0+1200x{n}"}, _HOUR, ("RouterAnswersBurnSlow",)),
    # 0.2 %: twice the budget, seen only over the long windows (6 h and longer).
    "RouterAnswersBurnSlow": Case({FAILED: "0+120x{n}"}, 8 * 60, interval="4m"),
    # 20 % slower than 10 ms: 20 times the budget.
    "RouterLatencyBurnFast": Case({QUICK: "0+48000x{n}"}, _HOUR, ("RouterLatencyBurnSlow",)),
    # 2 %: twice the budget.
    "RouterLatencyBurnSlow": Case({QUICK: "0+58800x{n}"}, 8 * 60, interval="4m"),
    "RouterFleetDown": Case({of("router_ready"): "0+0x{n}"}, also=("RouterPodNotReady",)),
    "RouterAbsent": Case({of("router_ready"): "_x{n}"}),
    "RouterPodNotReady": Case({'router_ready{namespace="apps",job="demo",pod="b",instance="j"}': "0+0x{n}"}),
    "RouterPodDegraded": Case({of("router_degraded", 'part="dispatch"'): "1+0x{n}"}),
    "RouterShedding": Case({of("router_shed_total", 'cause="full"'): "0+6x{n}"}),
    "RouterTenantFloods": Case({of("router_shed_total", 'cause="tenant"'): "0+60000x{n}"}),
    "RouterLoopBlocked": Case({LAG_QUICK: "0+0x{n}"}, 20),
    "RouterStoreAway": Case({of("router_store_breaker_open"): "1+0x{n}"}),
    "RouterStoreSlow": Case({STORE_QUICK: "0+0x{n}"}),
    "RouterReplicasBehind": Case({of("router_store_unconfirmed_total", 'script="settle"'): "0+6x{n}"}),
    "RouterStoreReseeded": Case({of("router_store_reseeded_total"): _ONCE}),
    "RouterClockStepped": Case({of("router_store_clock_steps_total", 'direction="back"'): _ONCE}),
    "RouterStoreFull": Case({of("router_store_memory_share"): "0.95+0x{n}"}),
    "RouterStoreKindLarge": Case({of("router_alerts_raised_total", 'condition="store_kind_large"'): _ONCE}),
    "RouterAuditReadSlow": Case({READ_QUICK: "0+500x{n}"}),
    "RouterAuditCutYoung": Case({CUT: _ONCE}),
    "RouterAuditExportBehind": Case({of("router_audit_export_lag_share"): "0.9+0x{n}"}),
    "RouterAuditExportLost": Case({of("router_audit_export_lost_total"): _ONCE}),
    "RouterAuditQuotaUsedUp": Case({of("router_audit_unrecorded_total"): _ONCE}),
    "RouterNatsSlow": Case({of("router_nats_rtt_seconds"): "0.2+0x{n}"}),
    "RouterStateFileOld": Case({of("router_alerts_raised_total", 'condition="cp_state_old"'): _ONCE}),
    "RouterAuditDeferred": Case({of("router_audit_deferred"): "3+0x{n}"}),
    "RouterPolicySkew": Case({of("router_policy_revision_skew"): "1+0x{n}"}),
    "RouterPolicyUnreadable": Case({of("router_policy_load_failures_total"): _ONCE}),
    "RouterNatsAway": Case({of("router_nats_connected"): "0+0x{n}"}),
    "RouterPermissionLost": Case({of("router_nats_permissions_lost"): "1+0x{n}"}),
    "RouterStreamOverRequests": Case({of("router_alerts_raised_total", 'condition="stream_covers_requests"'): _ONCE}),
    "RouterStreamsDiffer": Case({of("router_stream_differences"): "1+0x{n}"}),
    "RouterConsumerBehind": Case({of("router_consumer_lag", 'stream="result"'): "2000+0x{n}"}),
    "RouterConsumerStalled": Case({of("router_consumer_stalls_total", 'stream="result"'): "0x5 2x{n}"}),
    "RouterAlertsLost": Case({of("router_alerts_lost_total"): _ONCE}),
    "RouterUsageNotDraining": Case({of("router_usage_reconciliation"): "5+0x{n}"}),
    "RouterPublishesFail": Case({of("router_publishes_total", 'outcome="failed"'): "0+3x{n}"}),
    "RouterIsolationViolation": Case({of("router_isolation_violations_total"): _ONCE}),
    "RouterReplySubjectsRefused": Case({of("router_reply_subjects_refused_total"): _ONCE}),
    "RouterAdminTokensGuessed": Case({of("router_admin_wrong_tokens_total"): "0+100x{n}"}),
    "RouterApiKeysGuessed": Case({of("router_api_wrong_keys_total"): "0+100x{n}"}),
    "RouterDeadLetters": Case({of("router_dead_letters_total", 'source="router"'): _ONCE}),
    "RouterBreakersOpening": Case({of("router_breaker_transitions_total", 'to="opened"'): "0x10 30x{n}"}),
    "RouterBreakersStayOpen": Case({of("router_breakers", 'state="open"'): "2+0x{n}"}, 40),
    "RouterLimitNearlyFull": Case({LIMIT: "0.95+0x{n}"}, 25),
    "RouterNoWorkers": Case({of("router_workers"): "0+0x{n}"}),
    "RouterBaseline": Case({of("router_gate_open"): "0+0x{n}"}),
    "RouterGateFlaps": Case({of("router_cp_fallback_total", 'reason="missing"'): "0x10 8x{n}"}),
}

# Situations beside those: what must fire in them, if anything.
MORE: dict[str, tuple[Case, tuple[str, ...]]] = {
    "forged heartbeats hide no fleet without workers": (
        Case({of("router_workers"): "10000+0x{n}", SETTLED: "7+0x{n}", ACKED: "7+0x{n}"}),
        ("RouterNoWorkers",),
    ),
    "workers that only acknowledge are there": (Case({SETTLED: "7+0x{n}"}), ()),
    "workers that only answer are there": (Case({ACKED: "7+0x{n}"}), ()),
    "a limit that eased a little is still nearly full": (
        Case({LIMIT: "0.95+0x30 0.85+0x{n}"}, 60),
        ("RouterLimitNearlyFull",),
    ),
    "a limit that eased is not": (Case({LIMIT: "0.95+0x30 0.75+0x{n}"}, 60), ()),
    "a limit that was never nine tenths full is not": (Case({LIMIT: "0.85+0x{n}"}, 60), ()),
    "a breaker that is on trial now and then stays open": (
        Case({of("router_breakers", 'state="open"'): " ".join(["1 0 0"] * 40)}, 60),
        ("RouterBreakersStayOpen",),
    ),
    "a breaker that opened for a while does not": (
        Case({of("router_breakers", 'state="open"'): "0+0x5 1+0x15 0+0x{n}"}, 60),
        (),
    ),
    "one that leads after another is no gap": (
        Case(
            {
                of("router_breakers", 'state="open"'): "1+0x20 0+0x{n}",
                'router_breakers{namespace="apps",job="demo",pod="b",instance="j",state="open"}': "0+0x22 1+0x{n}",
            },
            50,
        ),
        ("RouterBreakersStayOpen",),
    ),
}
