"""Metrics of policies, learned figures and the CP gate."""

from collections.abc import Iterable

from router.domain.gate import Fault
from router.telemetry.families import Families
from router.telemetry.tally import Decisions


class PolicyMetrics:
    """Counted by `usecases.policies`, `usecases.sampling` and `usecases.gate`."""

    def _policies(self, families: Families, tenants: Iterable[str], decisions: Decisions) -> None:
        self.policy_reloads = families.counter(
            "policy_reloads", documentation="Policy loads, by cause.", labels=("cause",)
        )
        self.policy_load_failures = families.counter(
            "policy_load_failures", documentation="Policy loads that failed; the last good policies stay."
        )
        self.policy_loads_waiting = families.gauge(
            "policy_loads_waiting",
            documentation="Tenants whose requests wait for a load of policies to start; mostly unknown names.",
        )
        self.policy_cache_bytes = families.gauge(
            "policy_cache_bytes", documentation="Estimated size of the compiled policies."
        )
        self.policy_cache_entries = families.gauge("policy_cache_entries", documentation="Tenants in the policy cache.")
        self.policy_skew = families.gauge(
            "policy_revision_skew",
            documentation="Cached tenants whose revision differs from the store's, as decide rows report.",
        )
        self.policy_skew_age = families.gauge(
            "policy_revision_skew_seconds",
            documentation="Time that the oldest tenant in router_policy_revision_skew has been behind; 0 if there is "
            "none.",
        )
        self.policy_revision = families.per_tenant(
            "policy_revision",
            documentation="Policy revision that the pod decides by; 0: not cached. Only for ROUTER_METRICS_TENANTS.",
            tenants=tenants,
            decisions=decisions,
        )
        self.figures_tenants = families.gauge(
            "figures_tenants", documentation="Tenants whose live figures the pod holds."
        )
        self.figures_failures = families.counter(
            "figures_failures", documentation="Reads of live figures that failed; the last figures stay."
        )
        self.cp_fallbacks = families.counter(
            "cp_fallback", documentation="Times that the gate fell back to the CP1 baseline.", labels=("reason",)
        )
        for fault in Fault:
            self.cp_fallbacks.labels(fault.value)
        self.gate_open = families.gauge("gate_open", documentation="1 while the CP gate allows all features.")
