"""Settings of what Redis holds, the audit log included, and of calls to it."""

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from router.settings.groups.group import Group
from router.settings.types import Ms, Seconds, Size, setting


class Store(Group):
    """Store: data in Redis and calls to it"""

    # Not `schema`: pydantic's BaseModel has that name.
    store_schema: str = setting("r1", description="First part of every key.", pattern=r"^[a-z0-9]{1,16}$")
    partitions: int = setting(
        64, description="Partitions of the key space; cannot change after the fleet's first start.", ge=1, le=4096
    )
    store_deadline_ms: Ms = setting(
        50,
        description="Deadline of one decide call to Redis. Three missed in a row make Redis unavailable: requests are "
        "then answered without it, at once.",
        ge=1,
        le=60_000,
    )
    decide_wait_ms: Ms | None = setting(
        None,
        description="Longest time that one decide request waits for Redis in all: for its policies, for the calls "
        "before its own, and for its own calls. Then it is answered without Redis.",
        ge=1,
        le=600_000,
        default_text="(4 × ROUTER_STORE_DEADLINE)",
    )
    store_breaker_retry_ms: Ms = setting(
        500, description="Wait between probes of an unavailable store.", ge=10, le=60_000
    )
    batch_max_rows: int = setting(256, description="Maximum requests in one store call.", ge=1, le=4096)
    batch_max_bytes: Size = setting(
        1 << 20, description="Maximum bytes of arguments in one store call.", ge=1 << 16, le=64 << 20
    )
    on_store_error: Literal["deny", "allow"] = setting(
        "deny",
        description="What happens to requests while the store is unavailable, if none of their limits says it: refuse "
        "or admit.",
    )
    audit_max_len: int = setting(100_000, description="Maximum audit entries per tenant.", ge=100, le=100_000_000)
    audit_retention_days: int = setting(
        7,
        description="Days that an audit entry is kept, unless the maximum per tenant is reached earlier.",
        ge=1,
        le=3650,
    )
    audit_log_sample: float = setting(
        0,
        description="Share of requests whose audit records are also written as log lines (level info) at once.",
        ge=0,
        le=1,
    )
    audit_identity: Literal["plain", "hashed", "off"] = setting(
        "plain",
        description="How the audit, its exports and task records name users and client addresses: as sent, as a keyed "
        "hash (needs ROUTER_AUDIT_IDENTITY_KEY_FILE), or not at all. Change it after all pods run a version that has "
        "it.",
    )
    audit_identity_key: SecretStr | None = setting(
        None,
        description="Key of hashed names, at least 32 characters, the same for all pods. Where it is known, queries by "
        "the plain name find hashed entries.",
        min_length=32,
    )
    audit_append_slow_ms: Ms = setting(
        25, description="Alert when 5 % of the calls that write audit records take longer.", ge=1
    )
    audit_read_slow_ms: Ms = setting(250, description="Alert when 5 % of a pod's audit log reads take longer.", ge=1)
    audit_export_subject: str | None = setting(
        None,
        description="Subject under beamline.audit. to which audit entries are exported before they are trimmed; none: "
        "no export.",
        pattern=r"^beamline\.audit(\.[A-Za-z0-9_-]+)+$",
    )
    audit_export_dir: Path | None = setting(
        None, description="Folder to which audit entries are exported before they are trimmed; none: no export."
    )
    store_kind_max_bytes: Size = setting(
        1_000_000_000, description="Alert when the keys of one kind use more Redis memory than this.", ge=1 << 20
    )
    message_index: Literal["all", "needed", "off"] = setting(
        "all",
        description="Decisions that can be looked up by `message_id` alone. all: of every request in the shapes "
        "message and input; needed: only where the message_id is not the request's identity; off: none, and such "
        "queries find nothing.",
    )
    tombstone_ttl_s: Seconds = setting(
        7_200,
        description="How long a finished task is remembered; longer than results and usage can be repeated.",
        ge=60,
    )
