"""Requests → the very arguments that a pod would send to lua/decide.lua, for callers without a pod."""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from hiredis import pack_command

from bench.workload import TENANTS, policy, requests, tenant
from router.domain.decide.outcome import Outcome
from router.domain.decide.plan import Plan, plan
from router.domain.decide.request import DecideRequest
from router.domain.ids import NAME_BYTES
from router.domain.policy.document import parse
from router.domain.policy.model import StoredPolicy
from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.calls import LaneSettings
from router.store.decide.rows import RowPacker
from router.store.decisions import decide_script
from router.store.keys import Keys
from router.store.packing import offer, sized, tail_extras, tail_head
from router.store.scripts.layouts import DECIDE_BATCH
from router.store.scripts.load import Script, load
from router.wire.request.decide import decode

SCHEMA, PARTITIONS = "r1", 64
FAR_FUTURE_MS = 4_102_444_800_000.0  # the year 2100: a row of the bench is never late


def stored_policies(third: str = "tenant") -> dict[str, StoredPolicy]:
    """Every tenant's policy, each compiled by itself as in a pod: equal ones share nothing."""
    return {tenant(n): StoredPolicy("default", 1, "0" * 16, parse(policy(third)).policy) for n in range(TENANTS)}


def batch_header() -> bytes:
    """ARGV[1] of every call, as a pod with default settings packs it."""
    s = LaneSettings()
    bounds = s.idempotency_ms, s.audit_max_len, s.audit_ms, s.publish_grace_ms
    return DECIDE_BATCH.head.pack(*bounds, FAR_FUTURE_MS, s.deadline_max_ms)


def planned(count: int, first_id: int, third: str = "tenant") -> Iterator[tuple[DecideRequest, Plan]]:
    """`count` requests of the workload, decoded and planned."""
    return planned_from(requests(count, first_id), stored_policies(third))


def planned_from(messages: Iterable[bytes], stored: Mapping[str, StoredPolicy]) -> Iterator[tuple[DecideRequest, Plan]]:
    """Requests, decoded and planned by their tenants' policies."""
    for data in messages:
        request = decode(data, None, None)
        assert isinstance(request, DecideRequest), request
        yield request, plan(request, stored[request.tenant_id])


def idempotency_pairs(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of remembered answers under random names, without the optional tail."""
    _, one = next(planned(1, 0))
    prefixes = [Keys(SCHEMA, PARTITIONS).idem_prefix(p) for p in range(PARTITIONS)]
    said = b"\x01\x00" + offer(one.candidates[0]) + tail_head("default", 1) + sized(b"") + tail_extras(None)
    for i in range(count):
        name = os.urandom(NAME_BYTES)
        yield prefixes[i % PARTITIONS] + name, b"\x01" + os.urandom(12) + said


def least_script() -> Script:
    """bench/least.lua."""
    keys = ("idem", "head", "state", "pin", "audit")
    folder = Path(__file__).parent
    return load("least", keys=keys, argv=("batch", "row"), returns={0: "admitted"}, folder=folder)


class Calls:
    """Packs planned requests into ready RESP commands; `script` stands in for decide."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or decide_script()
        self.header = batch_header()
        self._keys = Keys(SCHEMA, PARTITIONS)
        self._packer = RowPacker(self._keys, os.urandom)

    def single(self, request: DecideRequest, one: Plan) -> tuple[list[bytes], list[bytes], bytes]:
        """Keys, arguments and decision id of a call with one row."""
        batch = self.batch([(request, one)])
        return list(batch.index), [self.header, *batch.rows], batch.waiting[0].decision

    def batch(self, wanted: Iterable[tuple[DecideRequest, Plan]]) -> Batch:
        """One batch of rows."""
        batch = Batch()
        for nonce, (request, planned_one) in enumerate(wanted):
            keys = self._keys.tenant(request.tenant_id)
            decision = self._packer.decision_id(keys, planned_one)
            waiting = WaitingRow(request, planned_one, keys, None, _nobody_waits, decision, FAR_FUTURE_MS)
            self._packer.add(batch, waiting, nonce, FAR_FUTURE_MS)
        return batch

    def batches(
        self, rows: int, per_call: int, first_id: int, third: str = "tenant"
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Keys and arguments of `rows` requests in calls of `per_call` rows."""
        source = planned(rows, first_id, third)
        for _ in range(rows // per_call):
            batch = self.batch(islice(source, per_call))
            yield list(batch.index), [self.header, *batch.rows]

    def commands(self, rows: int, per_call: int, first_id: int, third: str = "tenant") -> list[bytes]:
        """The same as commands, as bytes for the socket."""
        call = self.script.call
        return [
            command(*call, len(keys), *keys, *arguments)
            for keys, arguments in self.batches(rows, per_call, first_id, third)
        ]


def command(*words: bytes | str | int) -> bytes:
    """A Redis command as bytes for the socket."""
    packed: bytes = pack_command(words)  # type: ignore[arg-type]  # hiredis types a tuple of one
    return packed


def _nobody_waits(outcome: Outcome, stamp: bytes) -> None:
    raise AssertionError("a bench row has no caller")
