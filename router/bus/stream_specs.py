"""What the fleet's streams and durable consumers are meant to be, and how those that are there differ."""

from collections.abc import Iterable

from msgspec import Struct

from router.errors import Problem, StartupRefused

_S = 1_000_000_000
_DEFAULT_DEDUP_NS = 120 * _S  # what the server takes when a stream names none


class StreamSpec(Struct, frozen=True):
    """One stream. `dedup_s` None leaves the server's default; `max_bytes` None is without a bound."""

    name: str
    subjects: tuple[str, ...]
    max_age_s: int
    dedup_s: int | None = None
    replicas: int = 1
    max_bytes: int | None = None


class ConsumerSpec(Struct, frozen=True):
    """One durable pull consumer: explicit ack, redelivered without end and without backoff."""

    stream: str
    name: str
    ack_wait_s: int = 30
    max_ack_pending: int = 4096
    filter_subject: str | None = None


class Difference(Struct, frozen=True):
    """What a stream or consumer has, and what was specified. `actual` is empty when it could not be created at all."""

    what: str
    field: str
    actual: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.what}: {self.field} is {self.actual or 'not possible'}, specified is {self.wanted}"


class Ensured(Struct, frozen=True):
    """What `ensure` did and found."""

    created: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()


def check(specs: Iterable[StreamSpec]) -> None:
    """Refuse what the server would refuse later.

    :raises StartupRefused: a dedup window longer than the stream's max age, naming every such stream.
    """
    problems = [
        Problem(spec.name, f"a dedup window of {spec.dedup_s} s is longer than the max age of {spec.max_age_s} s")
        for spec in specs
        if spec.dedup_s is not None and spec.max_age_s and spec.dedup_s > spec.max_age_s
    ]
    if problems:
        raise StartupRefused("; ".join(map(str, problems)))


def matches(pattern: str, subject: str) -> bool:
    """Whether a literal subject falls under a pattern with `*` and `>`."""
    want, have = pattern.split("."), subject.split(".")
    for index, part in enumerate(want):
        if part == ">":
            return len(have) > index
        if index >= len(have) or part not in ("*", have[index]):
            return False
    return len(want) == len(have)


class StreamConfig(Struct):
    """The part of a stream's configuration that is specified."""

    subjects: list[str] = []
    retention: str = "limits"
    max_age: int = 0
    duplicate_window: int = 0
    num_replicas: int = 1
    max_bytes: int = -1
    no_ack: bool = False


class StreamInfo(Struct):
    """A stream as the server sees it."""

    config: StreamConfig


class ConsumerConfig(Struct):
    """The part of a consumer's configuration that is specified."""

    ack_policy: str = ""
    ack_wait: int = 0
    max_deliver: int = -1
    max_ack_pending: int = 0
    backoff: list[int] = []
    filter_subject: str = ""


class ConsumerInfo(Struct):
    """A consumer as the server sees it. `num_pending` waits in the stream, `num_ack_pending` was given out."""

    config: ConsumerConfig
    num_pending: int = 0
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0


def compare_stream(spec: StreamSpec, config: StreamConfig) -> list[Difference]:
    """How a stream differs from its specification; empty is good."""
    dedup = spec.dedup_s * _S if spec.dedup_s is not None else min(_DEFAULT_DEDUP_NS, spec.max_age_s * _S)
    pairs: tuple[tuple[str, object, object], ...] = (
        ("subjects", sorted(config.subjects), sorted(spec.subjects)),
        ("retention", config.retention, "limits"),
        ("max_age_s", config.max_age / _S, float(spec.max_age_s)),
        ("dedup_s", config.duplicate_window / _S, dedup / _S),
        ("replicas", config.num_replicas, spec.replicas),
        ("max_bytes", config.max_bytes, -1 if spec.max_bytes is None else spec.max_bytes),
        ("no_ack", config.no_ack, False),
    )
    return _differences(f"stream {spec.name}", pairs)


def compare_consumer(spec: ConsumerSpec, config: ConsumerConfig) -> list[Difference]:
    """How a consumer differs from its specification; empty is good."""
    pairs: tuple[tuple[str, object, object], ...] = (
        ("ack_policy", config.ack_policy, "explicit"),
        ("ack_wait_s", config.ack_wait / _S, float(spec.ack_wait_s)),
        ("max_deliver", config.max_deliver, -1),
        ("max_ack_pending", config.max_ack_pending, spec.max_ack_pending),
        ("backoff", config.backoff, []),
        ("filter_subject", config.filter_subject, spec.filter_subject or ""),
    )
    return _differences(f"consumer {spec.name}", pairs)


def _differences(what: str, pairs: Iterable[tuple[str, object, object]]) -> list[Difference]:
    return [Difference(what, field, str(actual), str(wanted)) for field, actual, wanted in pairs if actual != wanted]
