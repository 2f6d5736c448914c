"""Checks of settings that are valid alone but contradict each other."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from pydantic import SecretStr

from router.domain.reply_refusal import PASSING
from router.settings import redis_url
from router.settings.groups import Settings
from router.settings.tokens import named_tokens
from router.wire import subjects

Contradiction = tuple[tuple[str, ...], str]
"""The compared fields, the one to change first, and what is wrong."""

_LITERAL = re.compile(r"caf\.exec(\.[A-Za-z0-9_-]+)+")
_STREAMS = ("assign", "assigned", "ack", "result", "usage", "alert", "audit", "dlq")
_WITH_DEDUP = ("assign", "assigned", "usage", "alert", "audit", "dlq")


def contradictions(s: Settings) -> Iterator[Contradiction]:
    """All contradictions in these settings; a pod does not start with any."""
    yield from _nats(s)
    yield from _redis(s)
    yield from _deadlines(s)
    yield from _streams(s)
    yield from _dispatch(s)
    yield from _admin(s)
    yield from _api(s)
    if s.policy_source == "files" and s.policy_dir is None:
        yield ("policy_dir", "policy_source"), "must be set when the policy source is files"


def _nats(s: Settings) -> Iterator[Contradiction]:
    if (s.nats_user is None) != (s.nats_password is None):
        yield ("nats_user", "nats_password"), "user and password go together: set both or neither"
    logins = [
        n for n in ("nats_user", "nats_token", "nats_creds_file", "nats_nkey_seed_file") if getattr(s, n) is not None
    ]
    if len(logins) > 1:
        yield tuple(logins), f"only one way to log in is possible: keep one of {', '.join(logins)}"
    if s.nats_js_domain is not None and s.nats_js_api_prefix is not None:
        yield ("nats_js_domain", "nats_js_api_prefix"), "a domain implies an API prefix: set only one of them"
    for inboxes in PASSING:
        if s.nats_js_api_prefix is not None and subjects.overlap(inboxes, f"{s.nats_js_api_prefix}."):
            yield ("nats_js_api_prefix",), f"is among the reply subjects {inboxes}>: callers could publish there"
    if (s.nats_tls_cert is None) != (s.nats_tls_key is None):
        yield ("nats_tls_cert", "nats_tls_key"), "certificate and key go together: set both or neither"
    if len({url.partition("://")[0] for url in s.nats_url}) > 1:
        yield ("nats_url",), "mixes nats:// with tls://, and one server without TLS is enough to lose the login"
    if logins and any(urlsplit(url).username is not None for url in s.nats_url):
        yield (logins[0], "nats_url"), "the URL has a login too: keep one of them"


def _redis(s: Settings) -> Iterator[Contradiction]:
    url = urlsplit(s.redis_url)
    if s.redis_cluster and redis_url.database(s.redis_url):
        yield ("redis_url", "redis_cluster"), "a cluster has only database 0: remove the number"
    if s.redis_cluster and url.scheme == "unix":
        yield ("redis_url", "redis_cluster"), "a cluster has no socket file: set the address of a node"
    if s.redis_cluster and s.redis_replica_url is not None:
        yield ("redis_replica_url", "redis_cluster"), "works only with a single server: remove one of them"
    for field in ("redis_url", "redis_replica_url"):
        if (value := getattr(s, field)) is not None:
            yield from _redis_login(s, field, value)
            yield from _redis_tls(s, field, value)
    if s.redis_replica_url is not None and url.scheme == "rediss" and s.redis_replica_url.startswith("redis://"):
        yield ("redis_replica_url", "redis_url"), "has no TLS, and the login would be sent in clear text: set rediss://"
    if (s.redis_tls_cert is None) != (s.redis_tls_key is None):
        yield ("redis_tls_cert", "redis_tls_key"), "certificate and key go together: set both or neither"

    yield from _sentinels(s)


def _sentinels(s: Settings) -> Iterator[Contradiction]:
    prefix = "redis_sentinel_"
    fields = Settings.model_fields
    given = [n for n in s.model_fields_set if n.startswith(prefix) and getattr(s, n) != fields[n].default]
    if not s.redis_sentinels:
        for name in sorted(given):
            yield (name, "redis_sentinels"), "has no effect without ROUTER_REDIS_SENTINELS: set that, or remove it"
        return
    if s.redis_cluster:
        yield ("redis_sentinels", "redis_cluster"), "a Redis Cluster has no sentinels: remove one of them"
    if s.redis_url.startswith("unix:"):
        yield ("redis_sentinels", "redis_url"), "sentinels name addresses, not socket files: set redis:// or rediss://"
    if (s.redis_sentinel_tls_cert is None) != (s.redis_sentinel_tls_key is None):
        names = ("redis_sentinel_tls_cert", "redis_sentinel_tls_key")
        yield names, "certificate and key go together: set both or neither"
    for part in ("ca", "cert", "key"):
        if getattr(s, f"{prefix}tls_{part}") is not None and not s.redis_sentinel_tls:
            yield (f"{prefix}tls_{part}", f"{prefix}tls"), "works only over TLS: set ROUTER_REDIS_SENTINEL_TLS=true"


def _redis_login(s: Settings, field: str, url: str) -> Iterator[Contradiction]:
    user, password = redis_url.login(url)
    if s.redis_username is not None and user:
        yield ("redis_username", field), "the URL has a user too: keep one of them"
    if s.redis_password is not None and password:
        yield ("redis_password", field), "the URL has a password too: keep one of them"


_TLS_PARAMETERS = {"redis_tls_ca": "ssl_ca_certs", "redis_tls_cert": "ssl_certfile", "redis_tls_key": "ssl_keyfile"}


def _redis_tls(s: Settings, field: str, url: str) -> Iterator[Contradiction]:
    parameters = redis_url.parameters(url)
    for setting, parameter in _TLS_PARAMETERS.items():
        if getattr(s, setting) is None:
            continue
        if not url.startswith("rediss://"):
            yield (setting, field), "works only over TLS: the URL must start with rediss://"
        if parameter in parameters:
            yield (setting, field), f"the URL has {parameter} too: keep one of them"
    if not s.redis_tls_insecure:
        for weakened in redis_url.weakened(url):
            remedy = "remove it, or accept any server with ROUTER_REDIS_TLS_INSECURE=true"
            yield (field, "redis_tls_insecure"), f"weakens TLS by {weakened}: {remedy}"


def _api(s: Settings) -> Iterator[Contradiction]:
    if (s.api_tls_cert is None) != (s.api_tls_key is None):
        yield ("api_tls_cert", "api_tls_key"), "certificate and key go together: set both or neither"
    if s.api_tls_client_ca is not None and s.api_tls_cert is None:
        yield (
            ("api_tls_client_ca", "api_tls_cert"),
            "works only over TLS: set ROUTER_API_TLS_CERT and ROUTER_API_TLS_KEY",
        )
    if s.api_auth == "open" and s.api_keys_file is not None:
        yield ("api_keys_file", "api_auth"), "has no effect where ROUTER_API_AUTH is open: set keys, or remove the file"
    if s.api_hosts and s.api_auth != "open":
        yield ("api_hosts", "api_auth"), "has an effect only where ROUTER_API_AUTH is open: remove it"
    if s.api == "on" and s.api_auth == "keys" and s.api_keys_file is None:
        hint = "`router key create` makes one, or let anybody ask with ROUTER_API_AUTH=open"
        yield ("api_keys_file", "api_auth"), f"is needed where ROUTER_API is on: {hint}"
    if s.api == "on" and s.api_port != 0 and s.api_port == s.http_port:
        yield ("api_port", "http_port"), "is the port of /livez, /readyz and /metrics: choose another one"
    for origin in s.api_cors_origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
            yield (
                ("api_cors_origins",),
                f"{origin!r} is no origin: write scheme, host and port, such as https://a.example",
            )
        if origin == "*" and s.api_auth == "open":
            yield ("api_cors_origins", "api_auth"), "lets every web page ask without a key: name the pages"


def _deadlines(s: Settings) -> Iterator[Contradiction]:
    if s.decide_wait_effective_ms < s.store_deadline_ms:
        yield ("decide_wait_ms", "store_deadline_ms"), "a request must be able to wait for one call at least"
    if s.deadline_least_ms > s.deadline_most_ms:
        yield (
            ("deadline_least_ms", "deadline_most_ms"),
            f"must be at most ROUTER_DEADLINE_MOST, {s.deadline_most_ms} ms",
        )
    if s.deadline_most_ms > s.deadline_max_ms:
        yield ("deadline_most_ms", "deadline_max_ms"), f"must be at most ROUTER_DEADLINE_MAX, {s.deadline_max_ms} ms"


def _streams(s: Settings) -> Iterator[Contradiction]:
    names: dict[str, str] = {}
    for stream in _STREAMS:
        field = f"stream_{stream}_name"
        name = getattr(s, field)
        other = names.setdefault(name, field)
        if other != field and name in (Settings.model_fields[field].default, Settings.model_fields[other].default):
            yield (field, other), f"two of the fleet's own streams cannot have the same name {name}"
    for stream in _WITH_DEDUP:
        age = s.assign_max_age_s if stream == "assign" else getattr(s, f"stream_{stream}_max_age_s")
        dedup = f"stream_{stream}_dedup_s"
        if getattr(s, dedup) > age:
            yield (dedup, f"stream_{stream}_max_age_s"), f"must be at most the stream's maximum age, {age} s"
    if s.assign_max_age_s * 1_000 < s.deadline_max_ms:
        yield (
            ("stream_assign_max_age_s", "deadline_max_ms"),
            "is too short: work items expire before their deadline",
        )
    if s.tombstone_ttl_s <= s.stream_result_max_age_s:
        yield (
            ("tombstone_ttl_s", "stream_result_max_age_s"),
            f"must exceed the maximum age of results, {s.stream_result_max_age_s} s, or repeats are metered again",
        )
    if s.tombstone_ttl_s <= s.stream_usage_dedup_s:
        yield (
            ("tombstone_ttl_s", "stream_usage_dedup_s"),
            f"must be more than the usage dedup window, {s.stream_usage_dedup_s} s",
        )


def _dispatch(s: Settings) -> Iterator[Contradiction]:
    for subject in s.assign_subjects:
        if not _LITERAL.fullmatch(subject) or subject == subjects.ASSIGN or not subjects.is_work_subject(subject):
            rule = "use a literal subject under caf.exec. that is not the router's own and does not end in .ack or .dlq"
            yield ("assign_subjects",), f"{subject!r} is not allowed: {rule}"
    for subject in s.stream_assign_filter:
        if subject not in (subjects.ASSIGN, *s.assign_subjects):
            rule = f"name {subjects.ASSIGN} or one of ROUTER_ASSIGN_SUBJECTS"
            yield ("stream_assign_filter", "assign_subjects"), f"{subject!r} is no subject of work items: {rule}"
    for field in ("reply_prefixes", "result_subject_prefixes"):
        for prefix in getattr(s, field):
            if not re.fullmatch(r"([A-Za-z0-9_-]+\.)+", prefix):
                yield (field,), f"{prefix!r} is not a prefix: use literal tokens and a dot at the end"
            elif subjects.may_reach_own(prefix):
                yield (field,), f"{prefix!r} reaches subjects of the fleet: callers could publish there"
            elif s.nats_js_api_prefix is not None and subjects.overlap(prefix, f"{s.nats_js_api_prefix}."):
                yield (field, "nats_js_api_prefix"), f"{prefix!r} reaches JetStream's API: callers could publish there"


def _admin(s: Settings) -> Iterator[Contradiction]:
    field_of_token: dict[str, str] = {}
    for field in ("viewer_token", "operator_token", "admin_token"):
        token: SecretStr | None = getattr(s, field)
        if token is None:
            continue
        other = field_of_token.setdefault(token.get_secret_value(), field)
        if other != field:
            yield (field, other), "two roles cannot have the same token"
    if s.admin_tokens is not None:
        for principal, _, text in named_tokens(s.admin_tokens.get_secret_value()):
            if text in field_of_token:
                yield ("admin_tokens", field_of_token[text]), f"the token of {principal} is also the token of a role"
