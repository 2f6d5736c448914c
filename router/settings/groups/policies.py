"""Settings of policies, their quotas, and the CP gate."""

from pathlib import Path
from typing import Literal

from router.settings.groups.group import Group
from router.settings.types import Ms, Seconds, Size, Tenant, setting


class Policies(Group):
    """Policies"""

    policy_dir: Path | None = setting(None, description="Folder of policies that are loaded into an empty store.")
    policy_source: Literal["redis", "files"] = setting(
        "redis", description="Source that wins after the first load: the store, or the files in the folder."
    )
    policy_history: int = setting(
        20, description="Revisions kept of each policy, for `router policy rollback`.", ge=1, le=1000
    )
    policy_history_days: int = setting(
        30, description="Days that the history of a deleted policy is kept.", ge=1, le=3650
    )
    quota_policies: int = setting(256, description="Maximum policies per tenant.", ge=1, le=10_000)
    quota_providers: int = setting(
        512, description="Maximum providers (different names) in all policies of a tenant.", ge=1, le=1_000_000
    )
    quota_rules: int = setting(
        2048, description="Maximum fallbacks and limits in all policies of a tenant.", ge=1, le=1_000_000
    )
    quota_requests: int | None = setting(
        None,
        description="Maximum decisions (so also remembered answers) per tenant in 24 hours; none: only its policies "
        "limit them.",
        ge=1,
        le=1_000_000_000,
    )
    quota_audit_rate: int | None = setting(
        None,
        description="Maximum audit records per second, over 10 s, from a tenant's requests; each decision or refusal "
        "writes one. Beyond it requests are refused, and the refusals are counted instead of recorded; none: "
        "unlimited.",
        ge=1,
        le=1_000_000,
    )
    policy_cache_ttl_s: Seconds = setting(
        300, description="Age at which a cached policy is read from the store again.", ge=1, le=86_400
    )
    policy_cache_max_bytes: Size = setting(
        100_000 * 1000,
        description="Maximum memory of a pod's compiled policies; the default is 100 KB for each of 1,000 tenants.",
        ge=1 << 20,
    )


class Gate(Group):
    """The CP gate"""

    cp_state_path: Path | None = setting(
        None, description="Path of the mounted CP state file; without it the pod runs as CP1 baseline."
    )
    cp_grace_s: Seconds = setting(
        60,
        description="How long the last value stays in force while the file is missing, unreadable or malformed.",
        ge=0,
        le=86_400,
    )
    cp_max_age_s: Seconds | None = setting(
        None, description="Alert when the file's updated_at is older than this.", ge=1
    )
    cp_poll_ms: Ms = setting(1_000, description="Interval between reads of the file.", ge=10, le=60_000)
    baseline_tenant: Tenant = setting("default", description="The only tenant that CP1 baseline serves.")
