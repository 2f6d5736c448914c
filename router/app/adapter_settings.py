"""Settings → the options of each adapter and use case."""

from urllib.parse import unquote, urlsplit

from router.bus.client.options import BusOptions, js_prefix_of
from router.bus.rights import Account
from router.bus.streams.consumers import WORKERS, consumers
from router.bus.streams.specs import ConsumerSpec, StreamSpec
from router.domain.access import ROLES
from router.domain.audit.identity import AuditIdentity, Naming
from router.domain.decide.plan import Deadlines
from router.domain.degraded import Degradable
from router.domain.policy.vocabulary import OnStoreError
from router.domain.roles import Role
from router.ports.policy_records import Quotas
from router.settings import Settings, redis_url
from router.settings.tokens import SHORTEST_SOON, named_tokens
from router.store.audit.retention import RetentionBounds
from router.store.decide.calls import LaneSettings
from router.store.policies import Bounds
from router.usecases.admin.access import AdminTokens
from router.usecases.decide.intake import DecideSettings
from router.usecases.policies.cache_settings import CacheSettings
from router.wire import subjects

DAY_MS = 86_400_000
# The TTL of an audit log is renewed at most once an hour; the margin keeps its last entries for the whole retention.
AUDIT_TTL_MARGIN_MS = DAY_MS
# Streams that version 0.1.0 created lack these subjects.
_ADDED = {"ack": (subjects.every_tenant(subjects.ACK),), "result": (subjects.every_tenant(subjects.RESULT),)}


def bus_options(s: Settings) -> BusOptions:
    """Address, credentials and TLS files of NATS."""
    return BusOptions(
        urls=s.nats_url,
        name=f"{s.nats_name}:{s.pod_name}",
        user=s.nats_user,
        password=None if s.nats_password is None else s.nats_password.get_secret_value(),
        token=None if s.nats_token is None else s.nats_token.get_secret_value(),
        creds=None if s.nats_creds_file is None else str(s.nats_creds_file),
        nkey_seed=None if s.nats_nkey_seed_file is None else str(s.nats_nkey_seed_file),
        inbox_prefix=s.nats_inbox_prefix,
        js_prefix=js_prefix_of(s.nats_js_domain, s.nats_js_api_prefix),
        tls_ca=None if s.nats_tls_ca is None else str(s.nats_tls_ca),
        tls_cert=None if s.nats_tls_cert is None else str(s.nats_tls_cert),
        tls_key=None if s.nats_tls_key is None else str(s.nats_tls_key),
        tls_first=s.nats_tls_first,
    )


def audit_ms(s: Settings) -> int:
    """How long a tenant's audit log is kept after its last entry, in ms."""
    return s.audit_retention_days * DAY_MS + AUDIT_TTL_MARGIN_MS


def lane_settings(s: Settings) -> LaneSettings:
    """Bounds of a decide call."""
    return LaneSettings(
        deadline_ms=s.store_deadline_ms,
        max_rows=s.batch_max_rows,
        max_bytes=s.batch_max_bytes,
        retry_ms=s.store_breaker_retry_ms,
        wait_replicas=s.wait_replicas,
        audit_max_len=s.audit_max_len,
        audit_ms=audit_ms(s),
        deadline_max_ms=s.deadline_max_ms,
    )


def retention_bounds(s: Settings) -> RetentionBounds:
    """How long audit entries are kept."""
    age_ms = s.audit_retention_days * DAY_MS
    return RetentionBounds(age_ms=age_ms, max_len=s.audit_max_len, ttl_ms=audit_ms(s))


def decide_settings(s: Settings) -> DecideSettings:
    """Settings of the decide use case."""
    # Callers of an account with an inbox prefix of its own have their inboxes there.
    answered = s.reply_prefixes or tuple(dict.fromkeys((subjects.INBOX, f"{s.nats_inbox_prefix}.")))
    return DecideSettings(
        max_in_flight=s.max_in_flight,
        wait_s=s.decide_wait_effective_ms / 1000,
        strict_correlation=s.strict_correlation,
        legacy_error_codes=s.legacy_error_codes,
        allowed_tenants=frozenset(s.allowed_tenants),
        baseline_tenant=s.baseline_tenant,
        on_store_error=OnStoreError(s.on_store_error),
        deadlines=Deadlines(factor=s.deadline_factor, min_ms=s.deadline_least_ms, max_ms=s.deadline_most_ms),
        deadline_max_ms=s.deadline_max_ms,
        result_subject_prefixes=(*answered, *s.result_subject_prefixes),
    )


def durable_consumers(s: Settings) -> tuple[ConsumerSpec, ...]:
    """The durable consumers of a fleet: workers, acks, results."""
    return consumers(
        assign=s.stream_assign_name,
        ack=s.stream_ack_name,
        result=s.stream_result_name,
        assign_subjects=s.assign_subjects,
        assign_filter=s.stream_assign_filter,
    )


def nats_account(s: Settings, tenant: str | None = None, *, consumer: str = WORKERS) -> Account:
    """The settings behind the permissions in NATS. `tenant`: restrict callers and workers to it. `consumer`: the
    consumer of workers.
    """
    from router.usecases.admin.acts import ACTS  # noqa: PLC0415 - only `router acl` needs it, and it is slow to import

    options = bus_options(s)
    acts = {party: tuple(a.name for a in ACTS.values() if a.role <= role) for party, role in ROLES.items()}
    return Account(
        acts=acts,
        consumer=consumer,
        streams=stream_specs(s),
        consumers=durable_consumers(s),
        inbox=options.inbox_prefix,
        api=options.js_prefix,
        reply_prefixes=s.reply_prefixes,
        result_prefixes=s.result_subject_prefixes,
        tenant=tenant,
    )


def audit_identity(s: Settings) -> AuditIdentity:
    """How the audit log names people."""
    key = "" if s.audit_identity_key is None else s.audit_identity_key.get_secret_value()
    return AuditIdentity(Naming(s.audit_identity), key.encode())


def quotas(s: Settings) -> Quotas:
    """Quotas on a tenant's policies."""
    return Quotas(policies=s.quota_policies, providers=s.quota_providers, rules=s.quota_rules)


def policy_bounds(s: Settings) -> Bounds:
    """Bounds on a tenant's stored policies and their history."""
    return Bounds(
        policies=s.quota_policies,
        revisions=s.policy_history,
        deleted_ms=s.policy_history_days * DAY_MS,
        audit_ms=audit_ms(s),
    )


def cache_settings(s: Settings) -> CacheSettings:
    """Bounds of the policy cache."""
    return CacheSettings(ttl_s=s.policy_cache_ttl_s, max_bytes=s.policy_cache_max_bytes)


def forget_ms(s: Settings) -> int:
    """After how many ms every pod has dropped a deleted policy, even without the announcement.

    At least 300 s plus a margin, since other pods may have another cache TTL.
    """
    return (max(s.policy_cache_ttl_s, 300) + 60) * 1000


def stream_specs(s: Settings) -> tuple[StreamSpec, ...]:
    """The streams of a fleet, those of dispatch first: an account may be too small for all."""
    dead_letters = tuple(f"{subject}.dlq" for subject in (subjects.RESULT, subjects.ACK))
    dispatch, alerts = Degradable.DISPATCH, Degradable.ALERTS
    rows: tuple[tuple[str, Degradable, tuple[str, ...], int, int | None, int | None], ...] = (
        (
            "assign",
            dispatch,
            (subjects.ASSIGN, *s.assign_subjects),
            s.assign_max_age_s,
            s.stream_assign_dedup_s,
            s.stream_assign_max_bytes,
        ),
        (
            "assigned",
            dispatch,
            (subjects.ASSIGNED,),
            s.stream_assigned_max_age_s,
            s.stream_assigned_dedup_s,
            s.stream_assigned_max_bytes,
        ),
        ("ack", dispatch, (subjects.ACK,), s.stream_ack_max_age_s, None, s.stream_ack_max_bytes),
        ("result", dispatch, (subjects.RESULT,), s.stream_result_max_age_s, None, s.stream_result_max_bytes),
        (
            "usage",
            dispatch,
            (subjects.USAGE,),
            s.stream_usage_max_age_s,
            s.stream_usage_dedup_s,
            s.stream_usage_max_bytes,
        ),
        ("dlq", dispatch, dead_letters, s.stream_dlq_max_age_s, s.stream_dlq_dedup_s, s.stream_dlq_max_bytes),
        (
            "alert",
            alerts,
            (f"{subjects.ALERT}.*",),
            s.stream_alert_max_age_s,
            s.stream_alert_dedup_s,
            s.stream_alert_max_bytes,
        ),
    )
    if s.audit_export_subject is not None:
        rows += (
            (
                "audit",
                Degradable.AUDIT_EXPORT,
                (s.audit_export_subject,),
                s.stream_audit_max_age_s,
                s.stream_audit_dedup_s,
                s.stream_audit_max_bytes,
            ),
        )
    return tuple(
        StreamSpec(
            name=getattr(s, f"stream_{kind}_name"),
            subjects=subjects_of_stream,
            max_age_s=age,
            dedup_s=dedup,
            replicas=s.stream_replicas,
            max_bytes=maximum,
            kind=kind,
            message_ttls=kind == "assign",
            part=part,
            added=_ADDED.get(kind, ()),
        )
        for kind, part, subjects_of_stream, age, dedup, maximum in rows
    )


def admin_tokens(s: Settings) -> AdminTokens:
    """The holders of admin tokens: one per role (the role's name is the principal), and named people."""
    return AdminTokens(tokens_of(s), open_reading=s.admin_nats_read == "open")


def tokens_of(s: Settings) -> list[tuple[str, Role, str]]:
    """Principal, role and token of each admin token."""
    roles = ((Role.VIEWER, s.viewer_token), (Role.OPERATOR, s.operator_token), (Role.ADMIN, s.admin_token))
    role_tokens = [(role.label, role, token.get_secret_value()) for role, token in roles if token is not None]
    named = () if s.admin_tokens is None else named_tokens(s.admin_tokens.get_secret_value())
    return [*role_tokens, *named]


def short_tokens(s: Settings) -> list[str]:
    """The variables and principals whose admin token is shorter than the next release accepts."""
    return [principal for principal, _, token in tokens_of(s) if len(token) < SHORTEST_SOON]


def secrets_of(s: Settings) -> tuple[str, ...]:
    """All secret values; the log formatter removes them."""
    secrets = (
        s.nats_password,
        s.nats_token,
        s.redis_password,
        s.redis_sentinel_password,
        s.audit_identity_key,
    )
    tokens = (token for _, _, token in tokens_of(s))
    urls = (s.redis_url, s.redis_replica_url)
    in_redis = (p for url in urls if url is not None for p in redis_url.passwords(url))
    in_nats = (p for url in s.nats_url for p in _nats_secrets(url))
    return (*(secret.get_secret_value() for secret in secrets if secret is not None), *tokens, *in_redis, *in_nats)


def _nats_secrets(url: str) -> set[str]:
    """The password or token in a URL, as written and percent-decoded."""
    parts = urlsplit(url)
    secret = parts.username if parts.password is None else parts.password
    return set() if not secret else {secret, unquote(secret)}
