"""Instructions of the pod per decision: `python -m bench.count.pod`, under callgrind with `--instr-atstart=no`.

The pod's decide path is composed as in `router.app`, with the servers of `bench.count.fakes`. Every plan cache is full:
each policy plans as many requests as a busy one has before, and each load runs uncounted, with the same requests under
other ids. The counts of each load go to callgrind's dump of that name; standard output gets a line of JSON: load →
decisions that were counted.
"""

import asyncio
import gc
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Any, cast

from prometheus_client import CollectorRegistry

from bench.count.client_requests import Callgrind
from bench.count.fakes import NATS_PORT, REDIS_PORT, STAMP, FakeNetwork, Load
from bench.processes import HOST
from bench.rows import PARTITIONS, SCHEMA, stored_policies
from bench.workload import SESSIONS, requests, session
from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from router.bus.requests.decide_endpoint import DecideEndpoint
from router.domain.decide.orders import ARRAY_AFTER
from router.domain.decide.plan import plan
from router.domain.decide.request import DecideRequest
from router.domain.gate import ALL_FEATURES
from router.domain.json import JsonObject
from router.domain.policy.model import StoredPolicy, TenantPolicies
from router.domain.policy.vocabulary import OnStoreError
from router.ports.extensions import Extensions
from router.ports.policies import Cause
from router.ports.tasks import Dispatch
from router.store.decide.availability import LaneHooks
from router.store.decide.calls import LaneSettings
from router.store.decide.lanes import Lanes
from router.store.decide.rows import RowPacker
from router.store.decisions import RedisDecisions, decide_script
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.telemetry import Telemetry
from router.tracing import Tracing
from router.usecases.decide.decide import Decide
from router.usecases.decide.intake import DecideSettings
from router.usecases.decide.outcomes import Outcomes
from router.usecases.policies.cache import PolicyCache
from router.usecases.policies.cache_settings import CacheSettings
from router.wire import subjects

LOADS = {"pod 128": (128, True, 5), "pod 16": (16, True, 24), "pod 1": (1, False, 200)}
"""Rows a call, whether requests arrive while a call is in flight, and the calls that are counted."""
WARM_CALLS = 4
_NO_DEADLINE_MS = 600_000
"""Callgrind makes a program fifty times slower."""


class StoredPolicies:
    """The workload's policies, for the cache."""

    def __init__(self, stored: Mapping[str, StoredPolicy]) -> None:
        self._stored = stored

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """See `ports.policies.Loader`."""
        return TenantPolicies(tenant_id, 1, STAMP, {"default": self._stored[tenant_id]})


class CacheEvents:
    """Events of the policy cache, which no decision causes."""

    def loaded(self, cause: Cause, found: TenantPolicies | None) -> None:
        """See `ports.policies.CacheHooks`; as the others."""

    def failed(self, tenant_id: str, why: str) -> None:
        """A load failed."""

    def cached(self, tenant_id: str, revision: int | None) -> None:
        """A tenant is cached."""

    def head_missing(self, tenant_id: str) -> None:
        """A tenant has no head."""


async def connected_pod(network: FakeNetwork, stored: Mapping[str, StoredPolicy]) -> None:
    """A pod that listens to the network's requests, with these tenants' policies in its cache."""
    asyncio.open_connection = network.open_connection  # type: ignore[assignment]
    telemetry = Telemetry(CollectorRegistry())
    cache = PolicyCache(
        StoredPolicies(stored),
        CacheEvents(),
        CacheSettings(ttl_s=_NO_DEADLINE_MS),
        clock=asyncio.get_running_loop().time,
    )
    for tenant_id in stored:
        await cache.load(tenant_id)
    bus = Bus(BusOptions((f"nats://{HOST}:{NATS_PORT}",), connect_timeout_s=60, ping_interval_s=_NO_DEADLINE_MS))
    await bus.start()
    await bus.wait_connected(60)
    store = await _store(telemetry)
    outcomes = Outcomes(store, cache, telemetry, OnStoreError.DENY, on_degraded=ignore)
    decide = Decide(
        store=store,
        policies=cache,
        features=lambda: ALL_FEATURES,
        dispatch=cast(Dispatch, None),  # nothing is pushed
        telemetry=telemetry,
        settings=DecideSettings(wait_s=_NO_DEADLINE_MS / 1000),
        outcomes=outcomes,
        tracing=Tracing.off(),
        extensions=cast(Extensions, None),  # no policy has any
    )
    await DecideEndpoint(bus, decide.handle, "bench").open()
    await bus.flush(60)


def _plan_as_a_busy_pod(stored: Mapping[str, StoredPolicy]) -> None:
    """Plan so many requests by each policy that it keeps its orders by slot, and those of the workload's sessions."""
    for tenant_id, policy in stored.items():
        for n in range(ARRAY_AFTER + SESSIONS):
            context: JsonObject = {"session_id": session(n % SESSIONS)}
            plan(DecideRequest(tenant_id, f"{n}", policy.policy_id, "chat", bytes(8), context=context), policy)


async def _store(telemetry: Telemetry) -> RedisDecisions:
    hooks = LaneHooks(on_call=lambda script, seconds, rows: ignore(), on_timeout=ignore, on_down=ignore)
    settings = LaneSettings(deadline_ms=_NO_DEADLINE_MS, call_budget_ms=_NO_DEADLINE_MS)
    keys, nodes = Keys(SCHEMA, PARTITIONS), SingleNode(f"redis://{HOST}:{REDIS_PORT}/0")
    packer, script = RowPacker(keys, os.urandom), decide_script()
    lanes = Lanes(keys=keys, nodes=nodes, packer=packer, script=script, settings=settings, hooks=hooks)
    await lanes.open()
    return RedisDecisions(keys, nodes, lanes, wait_ms=_NO_DEADLINE_MS)


def ignore(*_: Any) -> None:
    """For hooks that the bench does not read."""


def chunks(rows: int, payloads: Iterable[bytes]) -> list[bytes]:
    """NATS messages: a chunk of one, then chunks of `rows`."""
    messages = _messages(payloads)
    found = [next(messages)]
    while chunk := b"".join(islice(messages, rows)):
        found.append(chunk)
    return found


def _messages(payloads: Iterable[bytes]) -> Iterator[bytes]:
    for number, data in enumerate(payloads):
        yield b"MSG %b 1 _INBOX.bench.%06d %d\r\n%b\r\n" % (subjects.DECIDE.encode(), number, len(data), data)


async def count_load(network: FakeNetwork, callgrind: Callgrind, warm: Load, counted: Load, name: str) -> int:
    """Count a load after its warm-up, under its name; the number of decisions that were counted."""
    last = len(counted.chunks) - 1

    def switch(number: int) -> None:
        if number == WARM_CALLS:
            callgrind.start()
        elif number == last:
            callgrind.stop()

    await network.serve(warm)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as in the pod
    counted.on_call = switch
    await network.serve(counted)
    callgrind.dump(name)
    return counted.rows * (last - WARM_CALLS)


def still_clock() -> None:
    """A clock of 1 µs a look: timers of a second must not run more often where callgrind takes longer."""
    asyncio.get_running_loop().time = count(1_000.0, 1e-6).__next__  # type: ignore[method-assign]


async def _count() -> dict[str, int]:
    still_clock()
    network, callgrind = FakeNetwork(), Callgrind()
    stored = stored_policies()
    await connected_pod(network, stored)
    _plan_as_a_busy_pod(stored)
    loads, first_id = {}, 0
    for name, (rows, ahead, calls) in LOADS.items():
        many = rows * (WARM_CALLS + calls) + 1
        warm, counted = (
            Load(rows, ahead, chunks(rows, requests(many, first_id + n * (1 << 20))), ignore) for n in range(2)
        )
        first_id += 1 << 21
        loads[name] = await count_load(network, callgrind, warm, counted, name)
    return loads


def main() -> None:
    """Count, and end without the pod's farewells."""
    print(json.dumps(asyncio.run(_count())), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
