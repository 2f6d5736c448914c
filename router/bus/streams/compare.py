"""Streams and consumers as the server has them, compared with their specifications."""

import shlex
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from router.bus.streams.specs import ConsumerSpec, Difference, StreamSpec, covers

_S = 1_000_000_000
_DEFAULT_DEDUP_NS = 120 * _S  # the default of the server


class StreamConfig(Struct):
    """The specified part of a stream's configuration."""

    subjects: list[str] = []
    retention: str = "limits"
    max_age: int = 0
    duplicate_window: int = 0
    num_replicas: int = 1
    max_bytes: int = -1
    no_ack: bool = False
    allow_msg_ttl: bool = False


class StreamInfo(Struct):
    """The state of a stream on the server."""

    config: StreamConfig


class ConsumerConfig(Struct):
    """The specified part of a consumer's configuration."""

    ack_policy: str = ""
    ack_wait: int = 0
    max_deliver: int = -1
    max_ack_pending: int = 0
    backoff: list[int] = []
    filter_subject: str = ""
    filter_subjects: list[str] = []

    @property
    def filters(self) -> list[str]:
        """The subjects that the consumer delivers; empty: all of its stream."""
        return sorted(self.filter_subjects or ([self.filter_subject] if self.filter_subject else []))


class ConsumerInfo(Struct):
    """The state of a consumer on the server: `num_pending` messages wait, `num_ack_pending` are delivered."""

    config: ConsumerConfig
    num_pending: int = 0
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0


def uncovered(spec: StreamSpec, config: StreamConfig) -> list[str]:
    """The specified subjects that the stream does not store; `added` ones left out."""
    return [subject for subject in spec.subjects if not any(covers(x, subject=subject) for x in config.subjects)]


def is_foreign(spec: StreamSpec, config: StreamConfig) -> bool:
    """Whether the stream stores subjects that no pod would give it. Its owner then decides its limits and retention."""
    return not {*config.subjects} <= {*spec.subjects, *spec.added}


def compare_stream(spec: StreamSpec, config: StreamConfig) -> list[Difference]:
    """Compare a stream with its specification; no difference gives an empty list.

    Of a foreign stream only the subjects are compared.
    """
    what = f"stream {spec.name}"
    lacking = [s for s in (*spec.subjects, *spec.added) if not any(covers(x, subject=s) for x in config.subjects)]
    subjects: list[Difference] = []
    if lacking:
        all_subjects = ",".join((*config.subjects, *lacking))
        fix = f"nats stream edit {spec.name} --subjects={shlex.quote(all_subjects)}"
        wanted = str(sorted((*spec.subjects, *spec.added)))
        subjects = [
            Difference(what=what, field="subjects", actual=str(sorted(config.subjects)), specified=wanted, fix=fix)
        ]
    if is_foreign(spec, config):
        return subjects
    dedup = spec.dedup_s * _S if spec.dedup_s is not None else min(_DEFAULT_DEDUP_NS, spec.max_age_s * _S)
    pairs: tuple[tuple[str, object, object], ...] = (
        ("retention", config.retention, "limits"),
        ("max_age_s", config.max_age / _S, float(spec.max_age_s)),
        ("dedup_s", config.duplicate_window / _S, dedup / _S),
        ("replicas", config.num_replicas, spec.replicas),
        ("max_bytes", config.max_bytes, -1 if spec.max_bytes is None else spec.max_bytes),
        ("no_ack", config.no_ack, False),
    )
    return subjects + _differences(what, pairs)


def compare_consumer(spec: ConsumerSpec, config: ConsumerConfig, filters: list[str]) -> list[Difference]:
    """Compare a consumer with its specification and its `filters`; no difference gives an empty list."""
    pairs: tuple[tuple[str, object, object], ...] = (
        ("ack_policy", config.ack_policy, "explicit"),
        ("ack_wait_s", config.ack_wait / _S, float(spec.ack_wait_s)),
        ("max_deliver", config.max_deliver, -1),
        ("max_ack_pending", config.max_ack_pending, spec.max_ack_pending),
        ("backoff", config.backoff, []),
        ("filter_subjects", config.filters, filters),
    )
    fixes = {}
    if filters:
        chosen = " ".join(f"--filter={subject}" for subject in filters)
        fixes["filter_subjects"] = f"nats consumer edit {spec.stream} {spec.name} {chosen}"
    return _differences(f"consumer {spec.name}", pairs, fixes)


def _differences(
    what: str, pairs: Iterable[tuple[str, object, object]], fixes: Mapping[str, str] = MappingProxyType({})
) -> list[Difference]:
    return [
        Difference(what=what, field=field, actual=str(actual), specified=str(specified), fix=fixes.get(field, ""))
        for field, actual, specified in pairs
        if actual != specified
    ]
