"""The configurations of new streams and consumers, and hints on what to do when the server refuses one."""

from datetime import UTC, datetime, timedelta

from router.bus.streams import api
from router.bus.streams.compare import StreamConfig, is_foreign
from router.bus.streams.specs import ConsumerSpec, StreamSpec

_MAX_BYTES_REQUIRED = 10113


def stream_config(spec: StreamSpec) -> dict[str, object]:
    """The configuration of a new stream."""
    config: dict[str, object] = {
        "name": spec.name,
        "subjects": [*spec.subjects, *spec.added],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": spec.max_age_s * 1_000_000_000,
        "num_replicas": spec.replicas,
        "max_bytes": -1 if spec.max_bytes is None else spec.max_bytes,
    }
    if spec.dedup_s is not None:
        config["duplicate_window"] = spec.dedup_s * 1_000_000_000
    return config


def hint(spec: StreamSpec, error: api.JetStreamError, holders: list[str]) -> str:
    """What to do about a refusal; empty when the server's message already says it."""
    setting = f"ROUTER_STREAM_{spec.kind.upper()}"
    if error.err_code == _MAX_BYTES_REQUIRED:
        return f": set {setting}_MAX_BYTES"
    if holders:
        return f": take the subjects out of {holders[0]}, or set {setting}_NAME={holders[0]}"
    return ""


def consumer_config(
    spec: ConsumerSpec, filters: list[str], owner: StreamSpec | None, stored: StreamConfig | None
) -> dict[str, object]:
    """The configuration of a new consumer. `owner` specifies its stream; `stored` is the stream on the server."""
    config: dict[str, object] = {
        "durable_name": spec.name,
        "name": spec.name,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": spec.ack_wait_s * 1_000_000_000,
        "max_deliver": -1,
        "max_ack_pending": spec.max_ack_pending,
        "replay_policy": "instant",
    }
    if len(filters) == 1:
        config["filter_subject"] = filters[0]
    elif filters:
        config["filter_subjects"] = filters
    if stored is not None and owner is not None and is_foreign(owner, stored):
        # Its owner may keep messages for years; the fleet's own streams hold no more than this.
        since = datetime.now(UTC) - timedelta(seconds=owner.max_age_s)
        config |= {"deliver_policy": "by_start_time", "opt_start_time": since.isoformat()}
    return config
