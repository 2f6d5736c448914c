"""Packed values that scripts and pods both read; each starts with a format byte. Tasks: see `task_records`.

remembered  B 1, 5s fingerprint, 3s mark of the tenant, 4s random, B reason, B outcome flags, offer, tail
            [, d charged_ms] [, 8s mark of the result that settled it] [, msgpack of the metadata that post extensions
            added]
offer       varint latency_ms, varint cost_microusd, B length, provider name
tail        varint revision, B length, policy id, varint length, sticky key, varint length, extras (msgpack); a length
            is 0 where there is none
seen        B charges, a d each, B candidates, a d each, B own limits, per limit: B candidate, B charge, d units left,
            [8s provider entry of a pin that was left]
head        B 1, I revision, 4s random (the two are the stamp), B off, H levers, per lever: 8s provider entry, B verdict
pin         B 1, 8s provider entry, d set at (Redis ms)
step        field: the step's idempotency name; B 1, d decided at (Redis ms, with its fraction)
"""

import struct
from enum import IntFlag
from struct import Struct as Layout
from typing import Any

import msgspec
from msgspec import Struct, msgpack

from router.domain.decide.candidates import Candidate, Offer
from router.domain.decide.decision import Reason
from router.domain.decide.outcome import Observations, RequestFacts, Reservation, StoredAnswer
from router.domain.ids import decision_id
from router.domain.levers import Lever, TenantHead

FORMAT = 1
NO_STAMP = bytes(8)

_REMEMBERED = Layout(">B8s4sBB")
_HEAD = Layout(">BI4sBH")
_DOUBLE = Layout(">d")
_OWN = Layout(">BBd")
_STEP = Layout(">Bd")
_MARK_BYTES = 8


class FormatError(Exception):
    """A stored value is not of a format that this version reads."""


class OutcomeFlag(IntFlag):
    """Bits of a remembered answer."""

    PUSHED = 1
    FALLBACK_USED = 2
    SETTLED = 4
    RESERVED = 8
    METER = 16
    FINISHED = 32
    OWNED = 64
    MARKED = 128


class Extras(Struct, frozen=True, array_like=True, omit_defaults=True):
    """Fields that only some remembered answers have."""

    requires_cp: tuple[str, ...] = ()
    reserved: tuple[Reservation, ...] = ()
    unfinished: bool = False
    facts: RequestFacts | None = None


# Exceptions that decoding a truncated or changed value may raise.
DAMAGE = (IndexError, KeyError, OverflowError, ValueError, struct.error, msgspec.MsgspecError)
_NOTHING = b"\0"
HASH_BYTES = 5
_HASH_END, _OWNER_END = 6, 9
_pack_extras = msgpack.Encoder().encode
_unpack_extras = msgpack.Decoder(Extras).decode
_unpack_metadata = msgpack.Decoder(dict[str, Any]).decode


def varint(n: int) -> bytes:
    """LEB128, for n ≥ 0."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _read_varint(raw: bytes, pos: int) -> tuple[int, int]:
    n = shift = 0
    while True:
        b = raw[pos]
        pos += 1
        n |= (b & 0x7F) << shift
        if b < 0x80:
            return n, pos
        shift += 7


def offer(candidate: Candidate) -> bytes:
    """Pack the part of an answer that describes the chosen candidate."""
    name = candidate.provider.name.encode()
    return b"%b%b%c%b" % (
        varint(candidate.expected_latency_ms),
        varint(candidate.expected_cost_microusd),
        len(name),
        name,
    )


def offer_in(raw: bytes, pos: int) -> tuple[Offer, int]:
    """Decode an offer. Returns it and the position after it."""
    latency, pos = _read_varint(raw, pos)
    cost, pos = _read_varint(raw, pos)
    provider_id, pos = _read_name(raw, pos)
    return Offer(provider_id, latency, cost), pos


def tail_head(policy_id: str, revision: int) -> bytes:
    """Pack the first part of the tail: the policy."""
    name = policy_id.encode()
    return b"%b%c%b" % (varint(revision), len(name), name)


def tail_extras(extras: Extras | None) -> bytes:
    """Pack the last part of the tail. The sticky key stands between the two, packed by `sized`."""
    return _NOTHING if extras is None else sized(_pack_extras(extras))


def sized(packed: bytes) -> bytes:
    """Put the length in front of the bytes."""
    n = len(packed)
    return b"%c%b" % (n, packed) if n < 0x80 else varint(n) + packed


def _read_name(raw: bytes, pos: int) -> tuple[str, int]:
    end = pos + 1 + raw[pos]
    return raw[pos + 1 : end].decode(), end


def remembered(raw: bytes, partition: int, name: bytes) -> StoredAnswer:
    """Decode a remembered answer. Its partition, its name and its random bytes make the decision_id.

    :raises FormatError: not a format that this version reads, or damaged.
    """
    try:
        return _remembered(raw, partition, name)
    except DAMAGE as fault:
        raise FormatError(f"remembered answer: {fault}") from fault


def _remembered(raw: bytes, partition: int, name: bytes) -> StoredAnswer:
    if raw[0] != FORMAT:
        raise FormatError(f"remembered answer of format {raw[0]}")
    _, _, random, reason, flags = _REMEMBERED.unpack_from(raw)
    (provider_id, latency, cost), pos = offer_in(raw, _REMEMBERED.size)
    revision, pos = _read_varint(raw, pos)
    policy_id, pos = _read_name(raw, pos)
    size, pos = _read_varint(raw, pos)
    sticky_key = raw[pos : pos + size].decode() if size else None
    size, pos = _read_varint(raw, pos + size)
    extras = _unpack_extras(raw[pos : pos + size]) if size else Extras()
    pos += size
    charged = 0
    if flags & OutcomeFlag.RESERVED:
        charged, pos = _DOUBLE.unpack_from(raw, pos)[0], pos + _DOUBLE.size
    mark = b""
    if flags & OutcomeFlag.MARKED:
        mark, pos = raw[pos : pos + _MARK_BYTES], pos + _MARK_BYTES
    finished = bool(flags & OutcomeFlag.FINISHED)
    metadata = _unpack_metadata(raw[pos:]) if finished and pos < len(raw) else {}
    return StoredAnswer(
        decision_id(partition, name, random),
        provider_id,
        Reason(reason),
        policy_id,
        revision,
        latency,
        cost,
        bool(flags & OutcomeFlag.PUSHED),
        bool(flags & OutcomeFlag.FALLBACK_USED),
        bool(flags & OutcomeFlag.SETTLED),
        sticky_key,
        extras.requires_cp,
        int(charged),
        extras.reserved,
        bool(flags & OutcomeFlag.METER),
        extras.unfinished and not finished,
        metadata,
        raw[_HASH_END:_OWNER_END] if flags & OutcomeFlag.OWNED else b"",
        mark,
        extras.facts,
    )


def decided_ms(raw: bytes) -> float:
    """Decode when a step of a request was decided (Redis ms).

    :raises FormatError: not a format that this version reads, or damaged.
    """
    try:
        version, at_ms = _STEP.unpack(raw)
    except DAMAGE as fault:
        raise FormatError(f"step: {fault}") from fault
    if version != FORMAT:
        raise FormatError(f"step of format {version}")
    return float(at_ms)


PIN_FAILED = b"\1"
"""Stands behind the entry of a pin that was left because the caller reported its provider as failed."""


def seen(raw: bytes, pos: int = 0) -> Observations:
    """Decode the values that a row has read; see lua/decide.lua."""
    left_end = pos + 1 + 8 * raw[pos]
    left = struct.unpack_from(f">{raw[pos]}d", raw, pos + 1)
    waits = struct.unpack_from(f">{raw[left_end]}d", raw, left_end + 1)
    waits_end = left_end + 1 + 8 * raw[left_end]
    own_end = waits_end + 1 + _OWN.size * raw[waits_end]
    own_left: dict[int, dict[int, int]] = {}
    for candidate, charge, units in _OWN.iter_unpack(raw[waits_end + 1 : own_end]):
        own_left.setdefault(candidate, {})[charge] = int(units)
    pin_end = own_end + 8
    return Observations(
        tuple(map(int, left)),
        tuple(None if w < 0 else int(w) for w in waits),
        raw[own_end:pin_end] or None,
        own_left,
        raw[pin_end : pin_end + 1] == PIN_FAILED,
    )


def head(tenant_id: str, raw: bytes) -> TenantHead:
    """Decode the head of a tenant.

    :raises FormatError: not a format that this version reads, or damaged.
    """
    try:
        if raw[0] != FORMAT:
            raise FormatError(f"head of format {raw[0]}")
        _, revision, _, off, n = _HEAD.unpack_from(raw)
        levers = [(raw[pos : pos + 8], Lever(raw[pos + 8])) for pos in range(_HEAD.size, _HEAD.size + 9 * n, 9)]
    except DAMAGE as fault:
        raise FormatError(f"head: {fault}") from fault
    drained, forced = (frozenset(entry for entry, set_lever in levers if set_lever is lever) for lever in Lever)
    return TenantHead(tenant_id, revision, bool(off), drained, forced)
