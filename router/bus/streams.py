"""The streams and durable consumers on the server: missing ones are created, differences are reported.

Nothing is altered: changing a stream can lose messages of other consumers. An operator resolves a difference.
"""

from collections.abc import Sequence

from msgspec import Struct

from router.bus import api
from router.bus.connection import Bus
from router.bus.stream_specs import (
    ConsumerInfo,
    ConsumerSpec,
    Difference,
    Ensured,
    StreamInfo,
    StreamSpec,
    check,
    compare_consumer,
    compare_stream,
    matches,
)

_FINAL = {10074, 10047, 10023}  # more replicas than servers; no storage left; no resources


class _Names(Struct):
    streams: list[str] | None = None
    total: int = 0


class _ListedConfig(Struct):
    name: str
    subjects: list[str] | None = None


class _ListedStream(Struct):
    config: _ListedConfig


class _Page(Struct):
    streams: list[_ListedStream] | None = None
    missing: list[str] | None = None
    total: int = 0


class Listed(Struct, frozen=True):
    """All streams of the account: subjects by name. Streams in `missing` exist; their servers did not answer."""

    subjects: dict[str, tuple[str, ...]]
    missing: tuple[str, ...] = ()


class Streams:
    """The streams of a fleet. Any pod may call any method at any time, repeatedly."""

    def __init__(self, bus: Bus, specs: Sequence[StreamSpec], consumers: Sequence[ConsumerSpec] = ()) -> None:
        """:raises StartupRefused: see `stream_specs.check`."""
        check(specs)
        self._bus = bus
        self.specs = tuple(specs)
        self.consumers = tuple(consumers)

    def specified(self, subject: str) -> bool:
        """Whether a specified stream covers the subject."""
        return any(matches(pattern, subject) for spec in self.specs for pattern in spec.subjects)

    async def ensure(self) -> Ensured:
        """Create missing streams and consumers, and report the differences of the others.

        A stream or consumer that the server refuses to create is a difference too. Reasons are subjects of another
        stream, or no storage.

        :raises BusError: JetStream is unavailable, or has no leader now.
        """
        created: list[str] = []
        differences: list[Difference] = []
        for spec in self.specs:
            await self._ensure_stream(spec, created, differences)
        for consumer in self.consumers:
            await self._ensure_consumer(consumer, created, differences)
        return Ensured(tuple(created), tuple(differences))

    async def differences(self) -> tuple[Difference, ...]:
        """Compare the server with the specification, missing ones included, without creating anything.

        :raises BusError: JetStream is unavailable.
        """
        differences: list[Difference] = []
        for spec in self.specs:
            stream = await self._stream(spec.name)
            differences += [_missing(f"stream {spec.name}")] if stream is None else compare_stream(spec, stream.config)
        for wanted in self.consumers:
            state = await self.consumer(wanted.stream, wanted.name)
            name = f"consumer {wanted.name}"
            differences += [_missing(name)] if state is None else compare_consumer(wanted, state.config)
        return tuple(differences)

    async def ensure_consumer(self, spec: ConsumerSpec) -> Ensured:
        """Create a consumer and its stream if missing, and report differences.

        :raises BusError: JetStream is unavailable, or refused.
        """
        created: list[str] = []
        differences: list[Difference] = []
        for stream in self.specs:
            if stream.name == spec.stream:
                await self._ensure_stream(stream, created, differences)
        await self._ensure_consumer(spec, created, differences)
        return Ensured(tuple(created), tuple(differences))

    async def covering(self, subject: str) -> list[str]:
        """Return the sorted names of the streams that would acknowledge a publish on the subject or pattern.

        Streams with `no_ack` are left out: they send no acks.

        :raises BusError: JetStream is unavailable.
        """
        names: list[str] = []
        while True:
            query = {"subject": subject, "offset": len(names)}
            page = await api.call(self._bus, "STREAM.NAMES", query, _Names)
            names.extend(page.streams or ())
            if not page.streams or len(names) >= page.total:
                break
        acknowledging = []
        for name in sorted(names):
            info = await self._stream(name)
            if info is not None and not info.config.no_ack:
                acknowledging.append(name)
        return acknowledging

    async def listed(self) -> Listed:
        """Read the list of all streams of the account, with their subjects.

        :raises BusError: JetStream is unavailable, or this client may not read the list.
        """
        streams: dict[str, tuple[str, ...]] = {}
        missing: list[str] = []
        offset = 0
        while True:
            page = await api.call(self._bus, "STREAM.LIST", {"offset": offset}, _Page)
            found = page.streams or []
            streams.update((s.config.name, tuple(s.config.subjects or ())) for s in found)
            missing += page.missing or ()
            offset += len(found) + len(page.missing or ())
            if not found or offset >= page.total:
                return Listed(streams, tuple(name for name in missing if name not in streams))

    async def consumer(self, stream: str, name: str) -> ConsumerInfo | None:
        """Read the state of a consumer; None: the consumer or its stream is missing.

        :raises BusError: JetStream is unavailable.
        """
        try:
            return await api.call(self._bus, f"CONSUMER.INFO.{stream}.{name}", None, ConsumerInfo)
        except api.JetStreamError as error:
            if error.err_code in (api.CONSUMER_NOT_FOUND, api.STREAM_NOT_FOUND):
                return None
            raise

    async def _stream(self, name: str) -> StreamInfo | None:
        try:
            return await api.call(self._bus, f"STREAM.INFO.{name}", None, StreamInfo)
        except api.JetStreamError as error:
            if error.err_code == api.STREAM_NOT_FOUND:
                return None
            raise

    async def _ensure_stream(self, spec: StreamSpec, created: list[str], differences: list[Difference]) -> None:
        info = await self._stream(spec.name)
        if info is None:
            config = {
                "name": spec.name,
                "subjects": list(spec.subjects),
                "retention": "limits",
                "storage": "file",
                "discard": "old",
                "max_age": spec.max_age_s * 1_000_000_000,
                "num_replicas": spec.replicas,
                "max_bytes": -1 if spec.max_bytes is None else spec.max_bytes,
            }
            if spec.dedup_s is not None:
                config["duplicate_window"] = spec.dedup_s * 1_000_000_000
            try:
                await api.call(self._bus, f"STREAM.CREATE.{spec.name}", config, StreamInfo)
                created.append(spec.name)
                return
            except api.JetStreamError as error:
                info = await self._stream(spec.name)  # another pod may have created it, with other settings
                if info is None:
                    differences.append(await self._refused(spec, error))
                    return
        differences.extend(compare_stream(spec, info.config))

    async def _refused(self, spec: StreamSpec, error: api.JetStreamError) -> Difference:
        if error.code >= 500 and error.err_code not in _FINAL:
            raise error  # no leader, or busy: a retry may succeed
        holders = {name for subject in spec.subjects for name in await self.covering(subject)}
        where = f" (now in {', '.join(sorted(holders))})" if holders else ""
        return Difference(
            f"stream {spec.name}", "creation", "", f"{', '.join(spec.subjects)}{where}: {error.description}"
        )

    async def _ensure_consumer(self, spec: ConsumerSpec, created: list[str], differences: list[Difference]) -> None:
        info = await self.consumer(spec.stream, spec.name)
        if info is not None:
            differences.extend(compare_consumer(spec, info.config))
            return
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
        if spec.filter_subject is not None:
            config["filter_subject"] = spec.filter_subject
        # "create": without it the call updates a consumer that another pod has just created
        request = {"stream_name": spec.stream, "config": config, "action": "create"}
        try:
            await api.call(self._bus, f"CONSUMER.DURABLE.CREATE.{spec.stream}.{spec.name}", request, ConsumerInfo)
        except api.JetStreamError as error:
            if error.err_code == api.CONSUMER_EXISTS:
                return  # the next check compares it
            if error.code >= 500:
                raise
            differences.append(
                Difference(f"consumer {spec.name}", "creation", "", f"{spec.stream}: {error.description}")
            )
            return
        created.append(f"{spec.stream}/{spec.name}")


def _missing(what: str) -> Difference:
    return Difference(what, "state", "missing", "present")
