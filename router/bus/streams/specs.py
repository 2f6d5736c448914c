"""The streams and durable consumers that a fleet needs, and what a check of them finds."""

from collections.abc import Iterable

from msgspec import Struct

from router.domain.degraded import Degradable
from router.errors import Problem, StartupRefused


class StreamSpec(Struct, frozen=True):
    """The specification of a stream. `dedup_s` None: the server's default; `max_bytes` None: unlimited.

    - `kind`: the KIND of ROUTER_STREAM_<KIND>_NAME, for messages. `part`: the part of a pod that is off without the
      stream.
    - `added`: subjects that a new stream gets too, and that an existing stream may lack.
    - `message_ttls`: messages of a new stream may expire by a `Nats-TTL` of their own, on servers from 2.11 on.
    """

    name: str
    subjects: tuple[str, ...]
    max_age_s: int
    dedup_s: int | None = None
    replicas: int = 1
    max_bytes: int | None = None
    kind: str = ""
    part: Degradable = Degradable.DISPATCH
    added: tuple[str, ...] = ()
    message_ttls: bool = False


class ConsumerSpec(Struct, frozen=True, kw_only=True):
    """The specification of a durable pull consumer: explicit ack, unlimited redelivery, no backoff.

    `subjects`: what it delivers of a stream that holds more; empty: all that the stream's specification names.
    `filtered`: it delivers only `subjects` on every stream. `added`: further ones of them, where the server can filter
    by several subjects.
    """

    stream: str
    name: str
    ack_wait_s: int = 30
    max_ack_pending: int = 4096
    subjects: tuple[str, ...] = ()
    filtered: bool = False
    added: tuple[str, ...] = ()


class Difference(Struct, frozen=True, kw_only=True):
    """A difference between a stream or consumer and its specification; `actual` is empty if it cannot be created.

    `fix`: a command that removes the difference, where one does.
    """

    what: str
    field: str
    actual: str
    specified: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.what}: {self.field} is {self.actual or 'not possible'}, specified is {self.specified}"
        return f"{text}; fix: {self.fix}" if self.fix else text


class Missing(Struct, frozen=True):
    """A stream or consumer that is needed and cannot be used. `reason` names it, the server's words and the fix."""

    stream: str
    part: Degradable
    reason: str


class Ensured(Struct, frozen=True):
    """The result of `Streams.ensure`."""

    created: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    missing: tuple[Missing, ...] = ()


def check(specs: Iterable[StreamSpec]) -> None:
    """Check the specifications before the server does.

    :raises StartupRefused: a dedup window is longer than the max age of its stream; it names every such stream.
    """
    problems = [
        Problem(
            spec.name, message=f"a dedup window of {spec.dedup_s} s is longer than the max age of {spec.max_age_s} s"
        )
        for spec in specs
        if spec.dedup_s is not None and spec.max_age_s and spec.dedup_s > spec.max_age_s
    ]
    if problems:
        raise StartupRefused("; ".join(map(str, problems)))


def matches(pattern: str, *, subject: str) -> bool:
    """Whether a literal subject matches a pattern with `*` and `>`."""
    pattern_parts, parts = pattern.split("."), subject.split(".")
    for index, part in enumerate(pattern_parts):
        if part == ">":
            return len(parts) > index
        if index >= len(parts) or part not in ("*", parts[index]):
            return False
    return len(pattern_parts) == len(parts)


def covers(pattern: str, *, subject: str) -> bool:
    """Whether a pattern matches every subject that `subject`, itself a literal or a pattern, matches."""
    pattern_parts, parts = pattern.split("."), subject.split(".")
    for index, part in enumerate(pattern_parts):
        if part == ">":
            return len(parts) > index
        if index >= len(parts) or parts[index] == ">" or part not in ("*", parts[index]):
            return False
    return len(pattern_parts) == len(parts)
