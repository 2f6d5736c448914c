"""Questions to JetStream about streams and consumers; nothing is changed."""

from msgspec import Struct

from router.bus.client.connection import Bus
from router.bus.streams import api
from router.bus.streams.compare import ConsumerInfo, StreamInfo


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


async def read_stream(bus: Bus, name: str) -> StreamInfo | None:
    """Read the configuration of a stream; None: it is missing.

    :raises BusError: JetStream is unavailable.
    """
    try:
        return await api.call(bus, f"STREAM.INFO.{name}", None, StreamInfo)
    except api.JetStreamError as error:
        if error.err_code == api.STREAM_NOT_FOUND:
            return None
        raise


async def read_consumer(bus: Bus, stream: str, *, name: str) -> ConsumerInfo | None:
    """Read the state of a consumer; None: the consumer or its stream is missing.

    :raises BusError: JetStream is unavailable.
    """
    try:
        return await api.call(bus, f"CONSUMER.INFO.{stream}.{name}", None, ConsumerInfo)
    except api.JetStreamError as error:
        if error.err_code in (api.CONSUMER_NOT_FOUND, api.STREAM_NOT_FOUND):
            return None
        raise


async def covering(bus: Bus, subject: str) -> list[str]:
    """Return the sorted names of the streams that would acknowledge a publish on the subject or pattern.

    Streams with `no_ack` are left out: they send no acks.

    :raises BusError: JetStream is unavailable.
    """
    names: list[str] = []
    while True:
        query = {"subject": subject, "offset": len(names)}
        page = await api.call(bus, "STREAM.NAMES", query, _Names)
        names.extend(page.streams or ())
        if not page.streams or len(names) >= page.total:
            break
    acknowledging = []
    for name in sorted(names):
        info = await read_stream(bus, name)
        if info is not None and not info.config.no_ack:
            acknowledging.append(name)
    return acknowledging


async def listed(bus: Bus) -> Listed:
    """Read the list of all streams of the account, with their subjects.

    :raises BusError: JetStream is unavailable, or this client may not read the list.
    """
    streams: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []
    offset = 0
    while True:
        page = await api.call(bus, "STREAM.LIST", {"offset": offset}, _Page)
        found = page.streams or []
        streams.update((s.config.name, tuple(s.config.subjects or ())) for s in found)
        missing += page.missing or ()
        offset += len(found) + len(page.missing or ())
        if not found or offset >= page.total:
            return Listed(streams, tuple(name for name in missing if name not in streams))
