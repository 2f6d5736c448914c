"""`ports.extensions.ExtensionStore` on Redis: one hash for the whole fleet, one packed record per extension.

record  B 1, B state, d opened_at, d open_until, I failures in a row, d rate window, I good, I bad in it, d generation,
        d last good, d last bad, d updated, 8s probe, d probe until, this generation, the one before
generation   I good, I bad, d ms in all, I a latency bucket (domain.extensions.health)
tally   B length of the name, I good, I bad, I failures in a row at its end, d ms in all, d last good, d last bad,
        8s probe, I ms of the probe, I a bucket, name
"""

from collections.abc import Sequence
from struct import Struct as Layout
from typing import Any

from router.domain.extensions.health import (
    BUCKETS,
    ERROR_RATE,
    FAILURES_IN_A_ROW,
    GENERATION_MS,
    MINIMUM_CALLS,
    OPEN_MS,
    RATE_WINDOW_MS,
    ExtensionRecord,
    Settled,
    Tally,
    name_of,
)
from router.domain.levers import BreakerState
from router.errors import StoreError
from router.store.keys import Keys
from router.store.packing import DAMAGE, FORMAT, FormatError
from router.store.scripts.load import Script, load
from router.store.servers.hashes import field_pairs
from router.store.servers.nodes import Nodes

MAX_RECORDS = 1000

_FIGURES = Layout(">IdIIIII")
_TALLY = Layout(f">BIIIddd8sI{BUCKETS}I")
_HEAD = Layout(">BBddIdIIdddd8sd")
_GENERATION = Layout(f">IId{BUCKETS}I")
_STATES = (BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN)
_NO_BUCKETS = [0] * BUCKETS


def settle_extensions_script(**options: Any) -> Script:
    """Load lua/settle_extensions.lua and check its header against this module's calls; options as in `scripts.load`."""
    return load("settle_extensions", keys=("extensions",), argv=("figures", "tally"), returns={0: "settled"}, **options)


def figures() -> bytes:
    """The thresholds of extension breakers, as the script reads them."""
    return _FIGURES.pack(
        FAILURES_IN_A_ROW, ERROR_RATE, MINIMUM_CALLS, RATE_WINDOW_MS, OPEN_MS, GENERATION_MS, MAX_RECORDS
    )


class RedisExtensions:
    """The health of the fleet's extensions; the port has the promises."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes
        self._settle = settle_extensions_script()

    async def settle(self, tallies: Sequence[Tally]) -> list[Settled]:
        """See `ports.extensions.ExtensionStore.settle`."""
        reply = await self._nodes.run(self._settle, [self._keys.extensions], [figures(), *map(packed, tallies)])
        try:
            return settled(tallies, reply)
        except FormatError as fault:
            raise StoreError(str(fault)) from fault

    async def records(self) -> list[ExtensionRecord]:
        """See `ports.extensions.ExtensionStore.records`."""
        flat = await self._nodes.call("HGETALL", self._keys.extensions)
        try:
            return sorted((record(name.decode(), raw) for name, raw in field_pairs(flat)), key=lambda r: r.name.text)
        except FormatError as fault:
            raise StoreError(str(fault)) from fault


def packed(tally: Tally) -> bytes:
    """A tally as the script reads it."""
    name = tally.name.text.encode()
    return (
        _TALLY.pack(
            len(name),
            tally.good,
            tally.bad,
            tally.in_a_row,
            tally.took_ms,
            tally.last_good_ms,
            tally.last_bad_ms,
            tally.probe,
            tally.probe_ms,
            *(tally.buckets or _NO_BUCKETS),
        )
        + name
    )


def settled(tallies: Sequence[Tally], reply: Sequence[bytes | int]) -> list[Settled]:
    """Decode the script's reply to these tallies."""
    results: list[Settled] = []
    for tally, raw, turn in zip(tallies, reply[1::2], reply[2::2], strict=True):
        if not isinstance(raw, bytes):
            raise FormatError("record of an extension: not a string")
        results.append(Settled(record(tally.name.text, raw), None if int(turn) < 0 else _STATES[int(turn)]))
    return results


def record(name: str, raw: bytes) -> ExtensionRecord:
    """Decode a stored record.

    :raises FormatError: not a format that this version reads, or damaged.
    """
    try:
        return _record(name, raw)
    except DAMAGE as fault:
        raise FormatError(f"record of an extension: {fault}") from fault


def _record(name: str, raw: bytes) -> ExtensionRecord:
    if raw[0] != FORMAT:
        raise FormatError(f"record of an extension of format {raw[0]}")
    _, state, opened, until, row, _, _, _, _, good_at, bad_at, updated, probe, probe_until = _HEAD.unpack_from(raw)
    recent = _GENERATION.unpack_from(raw, _HEAD.size)
    before = _GENERATION.unpack_from(raw, _HEAD.size + _GENERATION.size)
    good, bad, took, *buckets = (a + b for a, b in zip(recent, before, strict=True))
    return ExtensionRecord(
        name=name_of(name),
        state=_STATES[state],
        opened_at_ms=int(opened),
        open_until_ms=int(until),
        in_a_row=row,
        good=int(good),
        bad=int(bad),
        took_ms=int(took),
        last_good_ms=int(good_at),
        last_bad_ms=int(bad_at),
        updated_ms=int(updated),
        probe=probe,
        probe_until_ms=int(probe_until),
        buckets=[int(n) for n in buckets],
    )
