"""The streams and durable consumers on the server: created when missing, never altered, differences reported.

A difference is for an operator to resolve: altering a stream under other people's consumers can lose their messages.
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


class Streams:
    """The streams of one fleet on one bus. Every method may be called again at any time, by any pod."""

    def __init__(self, bus: Bus, specs: Sequence[StreamSpec], consumers: Sequence[ConsumerSpec] = ()) -> None:
        """:raises StartupRefused: see `check`."""
        check(specs)
        self._bus = bus
        self.specs = tuple(specs)
        self.consumers = tuple(consumers)

    def specified(self, subject: str) -> bool:
        """Whether one of the specified streams is meant to hold the subject."""
        return any(matches(pattern, subject) for spec in self.specs for pattern in spec.subjects)

    async def ensure(self) -> Ensured:
        """Create the streams and consumers that are missing, and report how the others differ.

        What the server does not let be created (subjects in another stream, no storage) is a difference too.

        :raises BusError: JetStream cannot be reached, or has no leader now.
        """
        created: list[str] = []
        differences: list[Difference] = []
        for spec in self.specs:
            await self._ensure_stream(spec, created, differences)
        for consumer in self.consumers:
            await self._ensure_consumer(consumer, created, differences)
        return Ensured(tuple(created), tuple(differences))

    async def differences(self) -> tuple[Difference, ...]:
        """How the server differs from what is specified, absence included. Creates nothing.

        :raises BusError: JetStream cannot be reached.
        """
        found: list[Difference] = []
        for spec in self.specs:
            info = await self._stream(spec.name)
            found.extend([_absent(f"stream {spec.name}")] if info is None else compare_stream(spec, info.config))
        for one in self.consumers:
            state = await self.consumer(one.stream, one.name)
            found.extend([_absent(f"consumer {one.name}")] if state is None else compare_consumer(one, state.config))
        return tuple(found)

    async def ensure_consumer(self, spec: ConsumerSpec) -> Ensured:
        """The same for one consumer and the stream under it.

        :raises BusError: JetStream cannot be reached, or refused.
        """
        created: list[str] = []
        differences: list[Difference] = []
        for stream in self.specs:
            if stream.name == spec.stream:
                await self._ensure_stream(stream, created, differences)
        await self._ensure_consumer(spec, created, differences)
        return Ensured(tuple(created), tuple(differences))

    async def covering(self, subject: str) -> list[str]:
        """Names of the streams that would answer a publish on the subject (or on one under the pattern); sorted.

        Streams with `no_ack` are left out: they answer nobody.

        :raises BusError: JetStream cannot be reached.
        """
        names: list[str] = []
        while True:
            query = {"subject": subject, "offset": len(names)}
            page = await api.call(self._bus, "STREAM.NAMES", query, _Names)
            names.extend(page.streams or ())
            if not page.streams or len(names) >= page.total:
                break
        answering = []
        for name in sorted(names):
            info = await self._stream(name)
            if info is not None and not info.config.no_ack:
                answering.append(name)
        return answering

    async def consumer(self, stream: str, name: str) -> ConsumerInfo | None:
        """The consumer's state, None when it or its stream is not there.

        :raises BusError: JetStream cannot be reached.
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
                info = await self._stream(spec.name)  # another pod may have been quicker, with other settings
                if info is None:
                    differences.append(await self._why_not(spec, error))
                    return
        differences.extend(compare_stream(spec, info.config))

    async def _why_not(self, spec: StreamSpec, error: api.JetStreamError) -> Difference:
        if error.code >= 500 and error.err_code not in _FINAL:
            raise error  # no leader, or busy: it may be possible in a second
        taken = {name for subject in spec.subjects for name in await self.covering(subject)}
        where = f" (now in {', '.join(sorted(taken))})" if taken else ""
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
        # "create": never the update that this call otherwise is, when another pod was quicker
        request = {"stream_name": spec.stream, "config": config, "action": "create"}
        try:
            await api.call(self._bus, f"CONSUMER.DURABLE.CREATE.{spec.stream}.{spec.name}", request, ConsumerInfo)
        except api.JetStreamError as error:
            if error.err_code == api.CONSUMER_EXISTS:
                return  # the next look compares it
            if error.code >= 500:
                raise
            differences.append(
                Difference(f"consumer {spec.name}", "creation", "", f"{spec.stream}: {error.description}")
            )
            return
        created.append(f"{spec.stream}/{spec.name}")


def _absent(what: str) -> Difference:
    return Difference(what, "state", "missing", "there")
