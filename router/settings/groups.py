"""Every setting, by group: name, type, default, bounds, description. `router config` and the reference read this."""

import getpass
import os
import socket
from collections import deque
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr, field_validator

from router.settings.tokens import named_tokens
from router.settings.types import (
    ExistingFile,
    HttpUrl,
    Ms,
    NatsUrls,
    RedisUrl,
    Seconds,
    Size,
    StreamName,
    Tenant,
    Tenants,
    Texts,
    setting,
)


class Group(BaseModel):
    """Some settings that belong together; the docstring is the heading of their table."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, allow_inf_nan=False)


class Pod(Group):
    """The pod and its HTTP port"""

    pod_name: str = setting(
        socket.gethostname,
        "Names this pod in the reply header `router-pod`, logs and audit.",
        default_text="(the host name)",
        pattern=r"^[A-Za-z0-9_.-]{1,255}$",
    )
    http_host: str = setting("0.0.0.0", "Address of /livez, /readyz and /metrics.", min_length=1)  # noqa: S104 - a container's door
    http_port: int = setting(8080, "Its port; 0 takes a free one.", ge=0, le=65535)
    drain_timeout_s: Seconds = setting(25, "After SIGTERM: how long accepted work may take to finish.", ge=1, le=3600)
    max_in_flight: int = setting(
        1024, "Requests in the pod at once; beyond it `service_overloaded`, before decoding.", ge=1, le=1_000_000
    )


class Nats(Group):
    """NATS"""

    nats_url: NatsUrls = setting(("nats://127.0.0.1:4222",), "Servers, comma-separated.", min_length=1)
    nats_name: str = setting("router", "Connection name shown by the server.", min_length=1, max_length=128)
    nats_user: str | None = setting(None, "User name.")
    nats_password: SecretStr | None = setting(None, "Password of that user.")
    nats_token: SecretStr | None = setting(None, "Token, instead of a user.")
    nats_creds_file: ExistingFile | None = setting(None, "Path of a .creds file (JWT and seed), instead of a user.")
    nats_tls_ca: ExistingFile | None = setting(None, "CA bundle that signs the server's certificate.")
    nats_tls_cert: ExistingFile | None = setting(None, "Client certificate, for mutual TLS.")
    nats_tls_key: ExistingFile | None = setting(None, "Key of the client certificate.")


class Redis(Group):
    """Redis"""

    redis_url: RedisUrl = setting("redis://127.0.0.1:6379/0", "Server, or any node of the cluster; rediss:// for TLS.")
    redis_cluster: bool = setting(False, "The server is a Redis Cluster: partitions are routed to their nodes.")
    redis_replica_url: RedisUrl | None = setting(
        None, "A replica that audit reads and exports use, so that they never slow a decision; not with a cluster."
    )
    redis_username: str | None = setting(None, "ACL user.")
    redis_password: SecretStr | None = setting(None, "Its password.")
    redis_tls_ca: ExistingFile | None = setting(None, "CA bundle that signs the server's certificate.")
    allow_eviction: bool = setting(False, "Run although the server may evict keys (maxmemory-policy not noeviction).")
    wait_replicas: int = setting(0, "Replicas that must have a write before it is answered (WAIT).", ge=0, le=10)


class Store(Group):
    """What is kept in Redis, and how it is called"""

    # Not `schema`: pydantic's BaseModel has that name.
    store_schema: str = setting("r1", "First part of every key.", pattern=r"^[a-z0-9]{1,16}$")
    partitions: int = setting(64, "Partitions of the key space; fixed at the fleet's first boot.", ge=1, le=4096)
    store_deadline_ms: Ms = setting(50, "Deadline over a whole call.", ge=1, le=60_000)
    store_breaker_retry_ms: Ms = setting(500, "Wait between probes of a store that is away.", ge=10, le=60_000)
    batch_max_rows: int = setting(256, "Requests in one call.", ge=1, le=4096)
    batch_max_bytes: Size = setting(1 << 20, "Bytes of arguments in one call.", ge=1 << 16, le=64 << 20)
    on_store_error: Literal["deny", "allow"] = setting(
        "deny", "When the store is away, for requests without a limit of their own that says it."
    )
    audit_max_len: int = setting(100_000, "Audit entries kept per tenant.", ge=100, le=100_000_000)
    audit_retention_days: int = setting(7, "Days an audit entry is meant to be readable.", ge=1, le=3650)
    audit_log_sample: float = setting(
        0,
        "Share of requests whose audit records are log lines, too (level info), as they happen.",
        ge=0,
        le=1,
    )
    audit_append_slow_ms: Ms = setting(25, "Alert when 5 % of the calls that write the audit take longer.", ge=1)
    audit_read_slow_ms: Ms = setting(250, "Alert when 5 % of a pod's reads of audit logs take longer.", ge=1)
    audit_export_subject: str | None = setting(
        None,
        "Subject under beamline.audit. to which audit entries are exported before they are cut; none: not exported.",
        pattern=r"^beamline\.audit(\.[A-Za-z0-9_-]+)+$",
    )
    audit_export_dir: Path | None = setting(
        None, "Folder to which audit entries are exported before they are cut; none: not exported."
    )
    store_kind_max_bytes: Size = setting(
        1_000_000_000, "Alert when the keys of one kind need more bytes of Redis than this.", ge=1 << 20
    )
    tombstone_ttl_s: Seconds = setting(
        7_200, "How long a finished task is remembered. Longer than results and usage can be repeated.", ge=60
    )


class Policies(Group):
    """Policies"""

    policy_dir: Path | None = setting(None, "Folder of policies that seeds an empty store.")
    policy_source: Literal["redis", "files"] = setting("redis", "Who wins after the seed.")
    policy_history: int = setting(20, "Revisions kept of each policy, for `router policy rollback`.", ge=1, le=1000)
    policy_history_days: int = setting(30, "Days that the history of a deleted policy is kept.", ge=1, le=3650)
    quota_policies: int = setting(256, "Policies that a tenant may have.", ge=1, le=10_000)
    quota_providers: int = setting(512, "Providers of different names in all its policies.", ge=1, le=1_000_000)
    quota_rules: int = setting(2048, "Fallbacks and limits in all its policies.", ge=1, le=1_000_000)
    quota_requests: int | None = setting(
        None,
        "Decisions that a tenant may get in 24 hours, and so answers it has remembered; none: as its policies say.",
        ge=1,
        le=1_000_000_000,
    )
    quota_audit_rate: int | None = setting(
        None,
        "Audit records a second, over ten of them, that a tenant's requests may make, each decision or refusal one; "
        "beyond it they are refused, and that is counted instead of recorded; none: no bound.",
        ge=1,
        le=1_000_000,
    )
    policy_cache_ttl_s: Seconds = setting(300, "Age at which a cached policy is read again.", ge=1, le=86_400)
    policy_cache_max_bytes: Size = setting(
        100_000 * 1000, "Bound on the compiled policies of a pod: 100 KB for each of 1,000 tenants.", ge=1 << 20
    )


class Gate(Group):
    """The CP gate"""

    cp_state_path: Path | None = setting(None, "Mounted state file; without it the pod runs as CP1 baseline.")
    cp_grace_s: Seconds = setting(60, "How long the last value counts after a good file vanished.", ge=0, le=86_400)
    cp_max_age_s: Seconds | None = setting(None, "Alert when the file's updated_at is older than this.", ge=1)
    cp_poll_ms: Ms = setting(1_000, "Wait between looks at the file.", ge=10, le=60_000)
    baseline_tenant: Tenant = setting("default", "The only tenant that CP1 baseline serves.")


class Intake(Group):
    """Requests"""

    allowed_tenants: Tenants = setting((), "Tenants served, comma-separated; empty: every tenant with a policy.")
    strict_correlation: bool = setting(False, "Insist on UUID or ULID ids, and on run, flow and step together.")
    legacy_error_codes: bool = setting(False, "Answer only with the error codes an old gateway knows.")
    deadline_factor: float = setting(5.0, "deadline = factor × the provider's expected latency …", gt=0, le=1000)
    deadline_least_ms: Ms = setting(5_000, "… but at least", ge=1)
    deadline_most_ms: Ms = setting(60_000, "… and at most.", ge=1)
    pipeline_deadline_ms: Ms = setting(
        10_000, "How long one request may be with its extensions in all.", ge=10, le=60_000
    )
    pipelines_max: int = setting(
        256, "Requests that are with their extensions at once; beyond it `service_overloaded`.", ge=1, le=1_000_000
    )
    deadline_max_ms: Ms = setting(1_800_000, "Bound on a deadline that the request gives itself.", ge=1, le=86_400_000)


class Dispatch(Group):
    """Dispatch and results"""

    assign_subjects: Texts = setting((), "Further literal subjects under caf.exec. that stream ASSIGN covers.")
    result_subject_prefixes: Texts = setting((), "Prefixes that `options.result_subject` may have beside `_INBOX.`.")
    dead_letter_after: int = setting(
        5,
        "Faults of one message, in all pods together, outages not counted, until it is a dead letter; four times as "
        "many where a newer pod may be able to read its task.",
        ge=1,
        le=100,
    )
    dead_letter_payloads: bool = setting(False, "Dead letters carry the payload, not only its hash.")


class Streams(Group):
    """JetStream streams"""

    stream_replicas: int = setting(1, "Replicas of every stream.", ge=1, le=5)
    stream_assign_name: StreamName = setting("ASSIGN", "Work items.")
    stream_assign_max_age_s: Seconds | None = setting(
        None, "Their maximum age.", ge=60, default_text="(1h or 2 × ROUTER_DEADLINE_MAX, the longer)"
    )
    stream_assign_dedup_s: Seconds = setting(3_600, "Their dedup window.", ge=1)
    stream_assign_max_bytes: Size | None = setting(None, "Their bound in bytes.", ge=1 << 20)
    stream_assigned_name: StreamName = setting("ASSIGNED", "Assigned events.")
    stream_assigned_max_age_s: Seconds = setting(86_400, "Their maximum age.", ge=60)
    stream_assigned_dedup_s: Seconds = setting(3_600, "Their dedup window.", ge=1)
    stream_assigned_max_bytes: Size | None = setting(None, "Their bound in bytes.", ge=1 << 20)
    stream_ack_name: StreamName = setting("ACK", "Workers' acks.")
    stream_ack_max_age_s: Seconds = setting(3_600, "Their maximum age.", ge=60)
    stream_ack_max_bytes: Size | None = setting(None, "Their bound in bytes.", ge=1 << 20)
    stream_result_name: StreamName = setting("RESULT", "Results.")
    stream_result_max_age_s: Seconds = setting(3_600, "Their maximum age.", ge=60)
    stream_result_max_bytes: Size | None = setting(None, "Their bound in bytes.", ge=1 << 20)
    stream_usage_name: StreamName = setting("USAGE", "Usage events.")
    stream_usage_max_age_s: Seconds = setting(604_800, "Their maximum age.", ge=60)
    stream_usage_dedup_s: Seconds = setting(
        3_600, "Their dedup window. Usage is sent again without a look into the stream for half of it.", ge=60
    )
    stream_usage_max_bytes: Size | None = setting(None, "Their bound in bytes.", ge=1 << 20)
    stream_alert_name: StreamName = setting("ALERT", "Alerts.")
    stream_alert_max_age_s: Seconds = setting(604_800, "Their maximum age.", ge=60)
    stream_alert_dedup_s: Seconds = setting(3_600, "Their dedup window.", ge=1)
    stream_alert_max_bytes: Size | None = setting(None, "Their bound in bytes.", ge=1 << 20)
    stream_audit_name: StreamName = setting("AUDIT", "Exported audit entries, if there is a subject for them.")
    stream_audit_max_age_s: Seconds = setting(2_592_000, "Their maximum age.", ge=60)
    stream_audit_dedup_s: Seconds = setting(3_600, "Their dedup window.", ge=1)
    stream_audit_max_bytes: Size | None = setting(None, "Their bound in bytes.", ge=1 << 20)
    stream_dlq_name: StreamName = setting("DLQ", "Dead letters.")
    stream_dlq_max_age_s: Seconds = setting(1_209_600, "Their maximum age.", ge=60)
    stream_dlq_dedup_s: Seconds = setting(3_600, "Their dedup window.", ge=1)
    stream_dlq_max_bytes: Size | None = setting(None, "Their bound in bytes.", ge=1 << 20)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid-{os.getuid()}"


class Admin(Group):
    """Admin acts"""

    principal: str = setting(
        _user,
        "Whom the audit names as the actor of commands that change something.",
        default_text="(the user's name at the operating system)",
        pattern=r"^[^\x00-\x1f\x7f]{1,128}$",
    )
    admin_nats_read: Literal["token", "open"] = setting(
        "token", "Whether the read-only admin subjects ask for a token."
    )
    viewer_token: SecretStr | None = setting(None, "Bearer token of role viewer.", min_length=16)
    operator_token: SecretStr | None = setting(None, "Bearer token of role operator.", min_length=16)
    admin_token: SecretStr | None = setting(None, "Bearer token of role admin.", min_length=16)
    admin_tokens: SecretStr | None = setting(
        None, "Tokens of named people: `principal:role:token`, one a line or comma-separated."
    )

    @field_validator("admin_tokens")
    @classmethod
    def _entries(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            deque(named_tokens(value.get_secret_value()), maxlen=0)
        return value


class Observe(Group):
    """Logs, metrics, traces"""

    log_level: Literal["debug", "info", "warning", "error"] = setting("info", "Least level that is written.")
    log_format: Literal["auto", "json", "human"] = setting("auto", "auto: human on a terminal, else JSON lines.")
    metrics_tenants: Tenants = setting(
        (), "Tenants with a label of their own, comma-separated; the rest is `other`.", max_length=100
    )
    alert_away_s: Seconds = setting(
        3, "Redis or NATS is away for so much of half a minute, in one piece or not: that is an alert.", ge=1, le=30
    )
    alert_calm_s: Seconds = setting(30, "A condition has not held for so long: its alert is resolved.", ge=0, le=3_600)
    otlp_endpoint: HttpUrl | None = setting(None, "OTLP/HTTP collector, such as http://collector:4318; none: no spans.")
    trace_sample_ratio: float = setting(0.05, "Share of traces kept when the caller has not decided.", ge=0, le=1)


GROUPS: tuple[type[Group], ...] = (
    Pod,
    Nats,
    Redis,
    Store,
    Policies,
    Gate,
    Intake,
    Dispatch,
    Streams,
    Admin,
    Observe,
)


class Settings(Pod, Nats, Redis, Store, Policies, Gate, Intake, Dispatch, Streams, Admin, Observe):
    """All settings of one pod, checked; read-only."""

    @property
    def assign_max_age_s(self) -> int:
        """Maximum age of stream ASSIGN: as set, else max(1 h, 2 × the longest deadline)."""
        return self.stream_assign_max_age_s or max(3_600, 2 * -(-self.deadline_max_ms // 1_000))
