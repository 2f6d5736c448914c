"""All settings by group: name, type, default, bounds, description. `router config` and docs/REFERENCE.md print them."""

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

_TOKENS = r"^[A-Za-z0-9_$-]+(\.[A-Za-z0-9_$-]+)*$"


class Group(BaseModel):
    """Base of a group of settings; a group's docstring is the heading of its table in the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, allow_inf_nan=False)


class Pod(Group):
    """The pod and its HTTP port"""

    pod_name: str = setting(
        socket.gethostname,
        "Name of this pod in the reply header `router-pod`, in logs and in the audit.",
        default_text="(the host name)",
        pattern=r"^[A-Za-z0-9_.-]{1,255}$",
    )
    http_host: str = setting(
        "::",
        "Address of /livez, /readyz and /metrics; `::` takes IPv6 and IPv4, and is 0.0.0.0 where there is no IPv6.",
        min_length=1,
    )
    http_port: int = setting(8080, "Port of that address; 0 takes a free port.", ge=0, le=65535)
    http_max_connections: int = setting(
        2048,
        "Maximum HTTP connections, at most half of the files that the pod may open; the one that has waited longest is "
        "closed for a new one.",
        ge=1,
        le=1_000_000,
    )
    drain_timeout_s: Seconds = setting(25, "Time that accepted work has to finish after SIGTERM.", ge=1, le=3600)
    max_in_flight: int = setting(
        1024,
        "Requests in the pod at once; further ones are refused with `service_overloaded` before they are decoded.",
        ge=1,
        le=1_000_000,
    )


class Nats(Group):
    """NATS"""

    nats_url: NatsUrls = setting(
        ("nats://127.0.0.1:4222",),
        "NATS servers, comma-separated; `tls://` in all of them for TLS. With `tls://`, or with any of the TLS "
        "settings below, a connection without TLS is never used.",
        min_length=1,
    )
    nats_name: str = setting("router", "Connection name that the server shows.", min_length=1, max_length=128)
    nats_user: str | None = setting(None, "User name for NATS.")
    nats_password: SecretStr | None = setting(None, "Password of the NATS user.")
    nats_token: SecretStr | None = setting(None, "Token for NATS, instead of a user.")
    nats_creds_file: ExistingFile | None = setting(
        None, "Path of a .creds file (JWT and seed) for NATS, instead of a user."
    )
    nats_nkey_seed_file: ExistingFile | None = setting(
        None, "Path of a file with the seed of an nkey for NATS, instead of a user."
    )
    nats_inbox_prefix: str = setting(
        "_INBOX",
        "First tokens of the pod's own inboxes, for users that may subscribe only to inboxes of their own.",
        pattern=_TOKENS,
    )
    nats_js_domain: str | None = setting(
        None, "JetStream domain, such as that of a hub behind a leaf node.", pattern=r"^[A-Za-z0-9_-]{1,64}$"
    )
    nats_js_api_prefix: str | None = setting(
        None,
        "First tokens of JetStream's API subjects, such as those of an import; instead of a domain.",
        pattern=_TOKENS,
    )
    nats_tls_ca: ExistingFile | None = setting(None, "CA bundle to verify the server's certificate.")
    nats_tls_cert: ExistingFile | None = setting(None, "Client certificate for mutual TLS.")
    nats_tls_key: ExistingFile | None = setting(None, "Key of the client certificate.")
    nats_tls_first: bool = setting(
        False, "Start TLS before the server's first line, for servers with `handshake_first`; nothing is in clear text."
    )


class Redis(Group):
    """Redis"""

    redis_url: RedisUrl = setting(
        "redis://127.0.0.1:6379/0", "Redis server, or any node of the cluster; rediss:// for TLS."
    )
    redis_cluster: bool = setting(False, "The server is a Redis Cluster; each partition's calls go to its node.")
    redis_replica_url: RedisUrl | None = setting(
        None, "Replica for audit reads and exports, so that they do not slow decisions; not with a cluster."
    )
    redis_username: str | None = setting(None, "ACL user of Redis.")
    redis_password: SecretStr | None = setting(None, "Password of the Redis user.")
    redis_tls_ca: ExistingFile | None = setting(None, "CA bundle to verify the server's certificate.")
    allow_eviction: bool = setting(
        False, "Start even if the server may evict keys (its maxmemory-policy is not noeviction)."
    )
    redis_maxmemory_policy: (
        Literal[
            "noeviction",
            "allkeys-lru",
            "allkeys-lfu",
            "allkeys-random",
            "volatile-lru",
            "volatile-lfu",
            "volatile-random",
            "volatile-ttl",
        ]
        | None
    ) = setting(
        None,
        "maxmemory-policy of servers that do not say theirs (INFO is blocked); where INFO says it, INFO counts.",
    )
    wait_replicas: int = setting(0, "Replicas that must have a write before it is answered (Redis WAIT).", ge=0, le=10)


class Store(Group):
    """Store: data in Redis and calls to it"""

    # Not `schema`: pydantic's BaseModel has that name.
    store_schema: str = setting("r1", "First part of every key.", pattern=r"^[a-z0-9]{1,16}$")
    partitions: int = setting(
        64, "Partitions of the key space; cannot change after the fleet's first start.", ge=1, le=4096
    )
    store_deadline_ms: Ms = setting(50, "Deadline of one store call.", ge=1, le=60_000)
    store_breaker_retry_ms: Ms = setting(500, "Wait between probes of an unavailable store.", ge=10, le=60_000)
    batch_max_rows: int = setting(256, "Maximum requests in one store call.", ge=1, le=4096)
    batch_max_bytes: Size = setting(1 << 20, "Maximum bytes of arguments in one store call.", ge=1 << 16, le=64 << 20)
    on_store_error: Literal["deny", "allow"] = setting(
        "deny",
        "What happens to requests while the store is unavailable, if none of their limits says it: refuse or admit.",
    )
    audit_max_len: int = setting(100_000, "Maximum audit entries per tenant.", ge=100, le=100_000_000)
    audit_retention_days: int = setting(
        7, "Days that an audit entry is kept, unless the maximum per tenant is reached earlier.", ge=1, le=3650
    )
    audit_log_sample: float = setting(
        0,
        "Share of requests whose audit records are also written as log lines (level info) at once.",
        ge=0,
        le=1,
    )
    audit_identity: Literal["plain", "hashed", "off"] = setting(
        "plain",
        "How the audit, its exports and task records name users and client addresses: as sent, as a keyed hash (needs "
        "ROUTER_AUDIT_IDENTITY_KEY_FILE), or not at all. Change it after all pods run a version that has it.",
    )
    audit_identity_key: SecretStr | None = setting(
        None,
        "Key of hashed names, at least 32 characters, the same for all pods. Where it is known, queries by the plain "
        "name find hashed entries.",
        min_length=32,
    )
    audit_append_slow_ms: Ms = setting(25, "Alert when 5 % of the calls that write audit records take longer.", ge=1)
    audit_read_slow_ms: Ms = setting(250, "Alert when 5 % of a pod's audit log reads take longer.", ge=1)
    audit_export_subject: str | None = setting(
        None,
        "Subject under beamline.audit. to which audit entries are exported before they are trimmed; none: no export.",
        pattern=r"^beamline\.audit(\.[A-Za-z0-9_-]+)+$",
    )
    audit_export_dir: Path | None = setting(
        None, "Folder to which audit entries are exported before they are trimmed; none: no export."
    )
    store_kind_max_bytes: Size = setting(
        1_000_000_000, "Alert when the keys of one kind use more Redis memory than this.", ge=1 << 20
    )
    message_index: Literal["all", "needed", "off"] = setting(
        "all",
        "Decisions that can be looked up by `message_id` alone. all: of every request in the shapes message and input; "
        "needed: only where the message_id is not the request's identity; off: none, and such queries find nothing.",
    )
    tombstone_ttl_s: Seconds = setting(
        7_200, "How long a finished task is remembered; longer than results and usage can be repeated.", ge=60
    )


class Policies(Group):
    """Policies"""

    policy_dir: Path | None = setting(None, "Folder of policies that are loaded into an empty store.")
    policy_source: Literal["redis", "files"] = setting(
        "redis", "Source that wins after the first load: the store, or the files in the folder."
    )
    policy_history: int = setting(20, "Revisions kept of each policy, for `router policy rollback`.", ge=1, le=1000)
    policy_history_days: int = setting(30, "Days that the history of a deleted policy is kept.", ge=1, le=3650)
    quota_policies: int = setting(256, "Maximum policies per tenant.", ge=1, le=10_000)
    quota_providers: int = setting(
        512, "Maximum providers (different names) in all policies of a tenant.", ge=1, le=1_000_000
    )
    quota_rules: int = setting(2048, "Maximum fallbacks and limits in all policies of a tenant.", ge=1, le=1_000_000)
    quota_requests: int | None = setting(
        None,
        "Maximum decisions (so also remembered answers) per tenant in 24 hours; none: only its policies limit them.",
        ge=1,
        le=1_000_000_000,
    )
    quota_audit_rate: int | None = setting(
        None,
        "Maximum audit records per second, over 10 s, from a tenant's requests; each decision or refusal writes one. "
        "Beyond it requests are refused, and the refusals are counted instead of recorded; none: unlimited.",
        ge=1,
        le=1_000_000,
    )
    policy_cache_ttl_s: Seconds = setting(
        300, "Age at which a cached policy is read from the store again.", ge=1, le=86_400
    )
    policy_cache_max_bytes: Size = setting(
        100_000 * 1000,
        "Maximum memory of a pod's compiled policies; the default is 100 KB for each of 1,000 tenants.",
        ge=1 << 20,
    )


class Gate(Group):
    """The CP gate"""

    cp_state_path: Path | None = setting(
        None, "Path of the mounted CP state file; without it the pod runs as CP1 baseline."
    )
    cp_grace_s: Seconds = setting(
        60, "How long the last value stays in force after a good file vanished.", ge=0, le=86_400
    )
    cp_max_age_s: Seconds | None = setting(None, "Alert when the file's updated_at is older than this.", ge=1)
    cp_poll_ms: Ms = setting(1_000, "Interval between reads of the file.", ge=10, le=60_000)
    baseline_tenant: Tenant = setting("default", "The only tenant that CP1 baseline serves.")


class Intake(Group):
    """Requests"""

    allowed_tenants: Tenants = setting(
        (), "Tenants that this fleet serves, comma-separated; empty: every tenant with a policy."
    )
    strict_correlation: bool = setting(
        False, "Require UUID or ULID as correlation ids, and run, flow and step ids together."
    )
    legacy_error_codes: bool = setting(False, "Answer only with error codes that old gateways know.")
    reply_prefixes: Texts = setting(
        (),
        "Prefixes of the reply subjects that are answered, comma-separated, each with a dot at the end; also those of "
        "`options.result_subject`. Empty: inboxes (`_INBOX.`), and other subjects that are neither the fleet's nor "
        "stored by a stream.",
    )
    deadline_factor: float = setting(
        5.0,
        "An attempt's deadline is this factor × the provider's expected latency, within the two bounds below.",
        gt=0,
        le=1000,
    )
    deadline_least_ms: Ms = setting(5_000, "Shortest deadline that the factor gives.", ge=1)
    deadline_most_ms: Ms = setting(60_000, "Longest deadline that the factor gives.", ge=1)
    pipeline_deadline_ms: Ms = setting(
        10_000, "Maximum time that one request spends in its extensions, in total.", ge=10, le=60_000
    )
    pipelines_max: int = setting(
        256, "Requests in extensions at once; further ones are refused with `service_overloaded`.", ge=1, le=1_000_000
    )
    deadline_max_ms: Ms = setting(1_800_000, "Longest deadline that a request may ask for.", ge=1, le=86_400_000)


class Dispatch(Group):
    """Dispatch and results"""

    assign_subjects: Texts = setting((), "Additional literal subjects under caf.exec. that stream ASSIGN stores.")
    results_by_name: Literal["any", "tenant_subject"] = setting(
        "any",
        "Where results without an assignment_id are accepted, which name a decision by tenant and id: on any subject "
        "of results, or only on `caf.exec.result.v1.tenant.<tenant>`.",
    )
    result_subject_prefixes: Texts = setting(
        (), "Prefixes allowed in `options.result_subject`, besides inboxes or ROUTER_REPLY_PREFIXES."
    )
    dispatch: Literal["required", "optional"] = setting(
        "required",
        "Whether a pod must have its streams to become ready; optional: without them it refuses pushed tasks only.",
    )
    publish_timeout_s: Seconds = setting(
        15,
        "How long a message is tried before its publish fails. A work item is not tried after its deadline either.",
        ge=1,
        le=3600,
    )
    final_keep_s: Seconds = setting(
        600,
        "How long the final result for an `options.result_subject` is kept for callers who repeat the request. Later, "
        "or with 0, they get it without output, from the record that ROUTER_TOMBSTONE_TTL keeps.",
        ge=0,
        le=86_400,
    )
    final_keep_bytes: Size = setting(
        4_096,
        "The largest output that is kept with such an end. Above 80 % of Redis' maxmemory no output is kept.",
        ge=0,
        le=65_536,
    )
    dead_letter_after: int = setting(
        5,
        "Faults of a message, over all pods and without outages, after which it becomes a dead letter. If only its "
        "task record is unreadable, four times as many, so that a newer pod can handle it.",
        ge=1,
        le=100,
    )
    dead_letter_payloads: bool = setting(False, "Dead letters hold the payload, not only its hash.")


class Streams(Group):
    """JetStream streams"""

    stream_replicas: int = setting(1, "Replicas of every stream.", ge=1, le=5)
    stream_assign_name: StreamName = setting("ASSIGN", "Stream of work items.")
    stream_assign_filter: Texts = setting(
        (),
        "Subjects that the consumer `workers` delivers, where other consumers take the rest of "
        "ROUTER_ASSIGN_SUBJECTS; empty: all.",
    )
    stream_assign_max_age_s: Seconds | None = setting(
        None, "Maximum age of work items.", ge=60, default_text="(1h or 2 × ROUTER_DEADLINE_MAX, whichever is longer)"
    )
    stream_assign_dedup_s: Seconds = setting(3_600, "Dedup window of work items.", ge=1)
    stream_assign_max_bytes: Size | None = setting(
        None, "Maximum total size of work items; none: unlimited.", ge=1 << 20
    )
    stream_assigned_name: StreamName = setting("ASSIGNED", "Stream of assigned events.")
    stream_assigned_max_age_s: Seconds = setting(86_400, "Maximum age of assigned events.", ge=60)
    stream_assigned_dedup_s: Seconds = setting(3_600, "Dedup window of assigned events.", ge=1)
    stream_assigned_max_bytes: Size | None = setting(
        None, "Maximum total size of assigned events; none: unlimited.", ge=1 << 20
    )
    stream_ack_name: StreamName = setting("ACK", "Stream of workers' acks.")
    stream_ack_max_age_s: Seconds = setting(3_600, "Maximum age of acks.", ge=60)
    stream_ack_max_bytes: Size | None = setting(None, "Maximum total size of acks; none: unlimited.", ge=1 << 20)
    stream_result_name: StreamName = setting("RESULT", "Stream of results.")
    stream_result_max_age_s: Seconds = setting(3_600, "Maximum age of results.", ge=60)
    stream_result_max_bytes: Size | None = setting(None, "Maximum total size of results; none: unlimited.", ge=1 << 20)
    stream_usage_name: StreamName = setting("USAGE", "Stream of usage events.")
    stream_usage_max_age_s: Seconds = setting(604_800, "Maximum age of usage events.", ge=60)
    stream_usage_dedup_s: Seconds = setting(
        3_600,
        "Dedup window of usage events. Usage older than half of it is looked up there before a repeated publish.",
        ge=60,
    )
    stream_usage_max_bytes: Size | None = setting(
        None, "Maximum total size of usage events; none: unlimited.", ge=1 << 20
    )
    stream_alert_name: StreamName = setting("ALERT", "Stream of alerts.")
    stream_alert_max_age_s: Seconds = setting(604_800, "Maximum age of alerts.", ge=60)
    stream_alert_dedup_s: Seconds = setting(3_600, "Dedup window of alerts.", ge=1)
    stream_alert_max_bytes: Size | None = setting(None, "Maximum total size of alerts; none: unlimited.", ge=1 << 20)
    stream_audit_name: StreamName = setting(
        "AUDIT", "Stream of exported audit entries; created only if ROUTER_AUDIT_EXPORT_SUBJECT is set."
    )
    stream_audit_max_age_s: Seconds = setting(2_592_000, "Maximum age of exported audit entries.", ge=60)
    stream_audit_dedup_s: Seconds = setting(3_600, "Dedup window of exported audit entries.", ge=1)
    stream_audit_max_bytes: Size | None = setting(
        None, "Maximum total size of exported audit entries; none: unlimited.", ge=1 << 20
    )
    stream_dlq_name: StreamName = setting("DLQ", "Stream of dead letters.")
    stream_dlq_max_age_s: Seconds = setting(1_209_600, "Maximum age of dead letters.", ge=60)
    stream_dlq_dedup_s: Seconds = setting(3_600, "Dedup window of dead letters.", ge=1)
    stream_dlq_max_bytes: Size | None = setting(
        None, "Maximum total size of dead letters; none: unlimited.", ge=1 << 20
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        return f"uid-{os.getuid()}"


class Admin(Group):
    """Admin acts"""

    principal: str = setting(
        _user,
        "Actor in the audit for commands that change something.",
        default_text="(the operating system user)",
        pattern=r"^[^\x00-\x1f\x7f]{1,128}$",
    )
    admin_nats_read: Literal["token", "open"] = setting(
        "token", "Whether the read-only admin subjects require a token."
    )
    viewer_token: SecretStr | None = setting(None, "Bearer token of role viewer, 32 characters or more.", min_length=16)
    operator_token: SecretStr | None = setting(
        None, "Bearer token of role operator, 32 characters or more.", min_length=16
    )
    admin_token: SecretStr | None = setting(None, "Bearer token of role admin, 32 characters or more.", min_length=16)
    admin_tokens: SecretStr | None = setting(
        None,
        "Tokens of named principals, each of 32 characters or more: `principal:role:token`, one per line or "
        "comma-separated.",
    )

    @field_validator("admin_tokens")
    @classmethod
    def _entries(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            deque(named_tokens(value.get_secret_value()), maxlen=0)
        return value


class Observe(Group):
    """Logs, metrics, traces"""

    log_level: Literal["debug", "info", "warning", "error"] = setting("info", "Lowest level that is written.")
    log_format: Literal["auto", "json", "human"] = setting(
        "auto", "Format of log lines; auto: human on a terminal, else JSON."
    )
    metrics_tenants: Tenants = setting(
        (), "Tenants with their own metric label, comma-separated; all others share `other`.", max_length=100
    )
    alert_away_s: Seconds = setting(
        3, "Alert when Redis or NATS is unavailable for this long in total within 30 s.", ge=1, le=30
    )
    alert_calm_s: Seconds = setting(
        30, "Resolve an alert when its condition has not held for this long.", ge=0, le=3_600
    )
    otlp_endpoint: HttpUrl | None = setting(
        None, "OTLP/HTTP collector for traces, such as http://collector:4318; none: no traces."
    )
    trace_sample_ratio: float = setting(
        0.05, "Share of traces that are sampled when the caller has not decided.", ge=0, le=1
    )


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
    """All settings of one pod; read-only."""

    @property
    def assign_max_age_s(self) -> int:
        """Maximum age of stream ASSIGN: the setting, else max(1 h, 2 × the longest deadline), in seconds."""
        return self.stream_assign_max_age_s or max(3_600, 2 * -(-self.deadline_max_ms // 1_000))
