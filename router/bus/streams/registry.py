"""The streams and durable consumers on the server: missing ones are created, differences are reported.

Nothing is altered: changing a stream can lose messages of other consumers. An operator resolves a difference.
"""

from collections import Counter
from collections.abc import Sequence

from router.bus.client.connection import Bus
from router.bus.streams import api, queries
from router.bus.streams.compare import (
    ConsumerInfo,
    StreamConfig,
    StreamInfo,
    compare_consumer,
    compare_stream,
    is_foreign,
    uncovered,
)
from router.bus.streams.creation import consumer_config, hint, stream_config
from router.bus.streams.specs import ConsumerSpec, Difference, Ensured, Missing, StreamSpec, check, matches

_FINAL = {10074, 10047, 10023}  # more replicas than servers; no storage left; no resources
_ONE_OF_A_WORK_QUEUE = {10099, 10100}  # a work queue stream: its consumers are its owner's
_MANY_FILTERS = (2, 10, 0)
_MESSAGE_TTLS = (2, 11, 0)


class _Findings:
    """What a check has found so far."""

    def __init__(self) -> None:
        self.created: list[str] = []
        self.differences: list[Difference] = []
        self.missing: list[Missing] = []

    def ensured(self) -> Ensured:
        return Ensured(tuple(self.created), tuple(self.differences), tuple(self.missing))

    def lacks(self, what: str, *, specified: str, missing: Missing) -> None:
        self.differences.append(Difference(what=what, field="creation", actual="", specified=specified))
        self.missing.append(missing)


class Streams:
    """The streams of a fleet. Any pod may call any method at any time, repeatedly.

    Several specifications may name one stream. No pod creates such a stream: it has another owner.
    """

    def __init__(self, bus: Bus, specs: Sequence[StreamSpec], consumers: Sequence[ConsumerSpec] = ()) -> None:
        """:raises StartupRefused: see `specs.check`."""
        check(specs)
        self._bus = bus
        self.specs = tuple(specs)
        self.consumers = tuple(consumers)
        self._uses = Counter(spec.name for spec in specs)
        self._configs: dict[str, StreamConfig] = {}

    def specified(self, subject: str) -> bool:
        """Whether a specified stream covers the subject."""
        return self.stream_of(subject) is not None

    def stream_of(self, subject: str) -> str | None:
        """The name of the specified stream that covers the subject."""
        return next((s.name for s in self.specs for x in (*s.subjects, *s.added) if matches(x, subject=subject)), None)

    def stores(self, subject: str) -> bool:
        """Whether the stream of a specified subject stored it at the last check; an older stream may lack it."""
        config = self._configs.get(self.stream_of(subject) or "")
        return config is not None and any(matches(pattern, subject=subject) for pattern in config.subjects)

    def dedup_s(self, name: str) -> float | None:
        """The dedup window of a stream at the last check, in seconds; None: not known."""
        config = self._configs.get(name)
        return None if config is None else config.duplicate_window / 1_000_000_000

    def allows_ttl(self, subject: str) -> bool:
        """Whether messages on a specified subject may have a `Nats-TTL`, as far as the last check knows."""
        config = self._configs.get(self.stream_of(subject) or "")
        return config is not None and config.allow_msg_ttl

    def refuses_ttl(self, subject: str) -> None:
        """Record that the server refused a `Nats-TTL` on this subject; valid until the next check."""
        config = self._configs.get(self.stream_of(subject) or "")
        if config is not None:
            config.allow_msg_ttl = False

    async def ensure(self) -> Ensured:
        """Create missing streams and consumers, and report the differences of the others.

        A stream or consumer that the server refuses to create, or that does not store its subjects, is missing, and a
        difference too. Reasons are subjects of another stream, limits of the account, or no storage.

        :raises BusError: JetStream is unavailable, or has no leader now.
        """
        findings = _Findings()
        for spec in self.specs:
            await self._ensure_stream(spec, findings)
        for consumer in self.consumers:
            await self._ensure_consumer(consumer, findings)
        return findings.ensured()

    async def differences(self) -> tuple[Difference, ...]:
        """Compare the server with the specification, missing ones included, without creating anything.

        :raises BusError: JetStream is unavailable.
        """
        differences: list[Difference] = []
        for spec in self.specs:
            stream = await self._stream(spec.name)
            differences += [_absent(f"stream {spec.name}")] if stream is None else compare_stream(spec, stream.config)
        for wanted in self.consumers:
            state = await self.consumer(wanted.stream, name=wanted.name)
            name = f"consumer {wanted.name}"
            filters = self._filters(wanted)
            differences += [_absent(name)] if state is None else compare_consumer(wanted, state.config, filters)
        return tuple(differences)

    async def ensure_consumer(self, spec: ConsumerSpec) -> Ensured:
        """Create a consumer and its stream if missing, and report differences.

        :raises BusError: JetStream is unavailable, or refused.
        """
        findings = _Findings()
        for stream in self.specs:
            if stream.name == spec.stream:
                await self._ensure_stream(stream, findings)
        await self._ensure_consumer(spec, findings)
        return findings.ensured()

    async def covering(self, subject: str) -> list[str]:
        """See `queries.covering`."""
        return await queries.covering(self._bus, subject)

    async def listed(self) -> queries.Listed:
        """See `queries.listed`."""
        return await queries.listed(self._bus)

    async def consumer(self, stream: str, *, name: str) -> ConsumerInfo | None:
        """See `queries.read_consumer`."""
        return await queries.read_consumer(self._bus, stream, name=name)

    async def _stream(self, name: str) -> StreamInfo | None:
        info = await queries.read_stream(self._bus, name)
        if info is None:
            self._configs.pop(name, None)
        else:
            self._configs[name] = info.config
        return info

    async def _ensure_stream(self, spec: StreamSpec, findings: _Findings) -> None:
        info = await self._stream(spec.name)
        if info is None and self._uses[spec.name] > 1:
            subjects = ", ".join(x for s in self.specs if s.name == spec.name for x in s.subjects)
            reason = f"stream {spec.name} does not exist; several settings name it, so create it over {subjects}"
            findings.lacks(f"stream {spec.name}", specified=subjects, missing=Missing(spec.name, spec.part, reason))
            return
        if info is None:
            try:
                ttls = spec.message_ttls and self._bus.server_version >= _MESSAGE_TTLS
                request = stream_config(spec) | ({"allow_msg_ttl": True} if ttls else {})
                created = await api.call(self._bus, f"STREAM.CREATE.{spec.name}", request, StreamInfo)
                self._configs[spec.name] = created.config
                findings.created.append(spec.name)
                return
            except api.JetStreamError as error:
                info = await self._stream(spec.name)  # another pod may have created it, with other settings
                if info is None:
                    await self._refused(spec, error, findings)
                    return
        findings.differences.extend(compare_stream(spec, info.config))
        if lacking := uncovered(spec, info.config):
            reason = f"stream {spec.name} does not store {', '.join(lacking)}: add the subject to it"
            findings.missing.append(Missing(spec.name, spec.part, reason))
        elif info.config.no_ack:
            reason = f"stream {spec.name} has no_ack, so it confirms nothing: use another stream"
            findings.missing.append(Missing(spec.name, spec.part, reason))

    async def _refused(self, spec: StreamSpec, error: api.JetStreamError, findings: _Findings) -> None:
        if error.code >= 500 and error.err_code not in _FINAL:
            raise error  # no leader, or busy: a retry may succeed
        holders = sorted({name for subject in spec.subjects for name in await self.covering(subject)})
        where = f" (now in {', '.join(holders)})" if holders else ""
        specified = f"{', '.join(spec.subjects)}{where}: {error.description}"
        reason = f"stream {spec.name} cannot be created over {specified}{hint(spec, error, holders)}"
        findings.lacks(f"stream {spec.name}", specified=specified, missing=Missing(spec.name, spec.part, reason))

    def _filters(self, spec: ConsumerSpec) -> list[str]:
        """The subjects that the consumer must deliver; empty: all of its stream."""
        several = self._bus.server_version >= _MANY_FILTERS
        subjects = sorted((*spec.subjects, *spec.added) if several else spec.subjects)
        if spec.filtered:
            return subjects
        config = self._configs.get(spec.stream)
        if config is None or not any(s.name == spec.stream and is_foreign(s, config) for s in self.specs):
            return []
        return subjects

    async def _ensure_consumer(self, spec: ConsumerSpec, findings: _Findings) -> None:
        if any(m.stream == spec.stream for m in findings.missing):
            return  # the reason is the stream
        filters = self._filters(spec)
        info = await self.consumer(spec.stream, name=spec.name)
        if info is not None:
            findings.differences.extend(compare_consumer(spec, info.config, filters))
            return
        what = f"consumer {spec.name}"
        if len(filters) > 1 and self._bus.server_version < _MANY_FILTERS:
            # Subjects of later releases are left out: the consumer works without them.
            needed = {x for s in self.specs if s.name == spec.stream for x in s.subjects}
            filters = [x for x in filters if x in needed]
        if len(filters) > 1 and self._bus.server_version < _MANY_FILTERS:
            specified = f"{spec.stream}: NATS before 2.10 filters by one subject only, not by {', '.join(filters)}"
            findings.lacks(what, specified=specified, missing=self._missing_consumer(spec, specified))
            return
        # "create": without it the call updates a consumer that another pod has just created
        owner = next((s for s in self.specs if s.name == spec.stream), None)
        config = consumer_config(spec, filters, owner, self._configs.get(spec.stream))
        request = {"stream_name": spec.stream, "config": config, "action": "create"}
        try:
            await api.call(self._bus, f"CONSUMER.DURABLE.CREATE.{spec.stream}.{spec.name}", request, ConsumerInfo)
        except api.JetStreamError as error:
            if error.err_code == api.CONSUMER_EXISTS:
                return  # the next check compares it
            if error.code >= 500:
                raise
            specified = f"{spec.stream}: {error.description}"
            if error.err_code in _ONE_OF_A_WORK_QUEUE:
                findings.differences.append(Difference(what=what, field="creation", actual="", specified=specified))
            else:
                findings.lacks(what, specified=specified, missing=self._missing_consumer(spec, specified))
            return
        findings.created.append(f"{spec.stream}/{spec.name}")

    def _missing_consumer(self, spec: ConsumerSpec, words: str) -> Missing:
        part = next(s.part for s in self.specs if s.name == spec.stream)
        return Missing(spec.stream, part, f"consumer {spec.name} cannot be created on stream {words}")


def _absent(what: str) -> Difference:
    return Difference(what=what, field="state", actual="missing", specified="present")
