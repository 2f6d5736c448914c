"""How a call writes the states that it changed: charges in place, anything else as a whole string."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from redis import Redis

from router.domain.decide.outcome import Admitted, LimitHit
from router.domain.decide.request import Options
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Limit, StoredPolicy, provider_entry
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import Moved
from router.installed_files import lua_dir
from router.store.decisions import decide_script
from router.store.servers.nodes import SingleNode
from router.store.tasks.store import settle_script
from tests.servers import LimitedValkey
from tests.store import machine
from tests.store.harness import MINUTE, TEST_CLOCK, Ask, Client, Store, policy, request, undispatched
from tests.store.pods import Pod, fresh_keys
from tests.store.tasks import correction

NO_RANGES = """
local true_redis = redis
local redis = setmetatable({
  pcall = function(name, ...)
    if name == 'SETRANGE' then return { err = 'NOPERM' } end
    return true_redis.pcall(name, ...)
  end,
}, { __index = true_redis })
"""
HOURLY = limit("hourly", Scope.TENANT, Resource.REQUESTS, 1000, 60 * MINUTE)
TOKENS = limit("tokens", Scope.TENANT, Resource.TOKENS, 5000, MINUTE)
USER = limit("user", Scope.USER, Resource.REQUESTS, 9, 2 * MINUTE)
POLICY = limit("policy", Scope.POLICY, Resource.REQUESTS, 40, 90_000)
PROVIDER = limit("provider", Scope.PROVIDER, Resource.TOKENS, 3000, 30_000)
BREAKER = Breaker(failure_threshold=2, timeout_ms=20_000)
_HEAD, _LIMIT = struct.Struct(">BB"), struct.Struct(">8sIddd96x")


class Whole(Store):
    """A store on a server that does not allow SETRANGE."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, replace={"clock": NO_RANGES + TEST_CLOCK})
        self.settle_script = settle_script(replace={"clock": NO_RANGES + TEST_CLOCK})


def limited(*limits: Limit, breaker: Breaker | None = None) -> StoredPolicy:
    """A policy of one provider under these limits."""
    return policy("a", limits=limits, breaker=breaker)


def in_place(client: Redis) -> int:
    """The number of SETRANGE calls of the server so far."""
    stats = client.info("commandstats")
    return int(stats.get("cmdstat_setrange", {}).get("calls", 0))


USERS = ("u", "v")


def states(store: Store, tenant: str) -> list[bytes | None]:
    """The packed states of a tenant, always in the same order."""
    of = store.of(tenant)
    keys = of.state, of.policy_state("default"), of.provider_state("a"), *map(of.user_state, USERS)
    found: list[bytes | None] = store.client.mget(keys)  # type: ignore[assignment]
    return found


def limits_in(raw: bytes) -> list[tuple[bytes, int, float, float, float]]:
    """Id, window, bucket index, sum and current bucket of every limit of a state without breakers."""
    _, n = _HEAD.unpack_from(raw)
    return [_LIMIT.unpack_from(raw, _HEAD.size + i * _LIMIT.size) for i in range(n)]


STEPS = some.lists(
    some.tuples(
        some.sampled_from((0, 0, 0, 1, 900, 6_000, 25_000, 130_000, -1, -4_000, -15_000)),
        some.lists(some.tuples(some.sampled_from(USERS), some.sampled_from((0, 1, 70, 900))), max_size=3),
        some.sampled_from((None, None, 0, 40, -30)),
        some.sampled_from(BreakerVerdict),
    ),
    min_size=4,
    max_size=12,
)


@pytest.mark.parametrize(
    "stored",
    [limited(TOKENS), limited(HOURLY, TOKENS, USER, POLICY, PROVIDER), limited(TOKENS, HOURLY, breaker=BREAKER)],
    ids=["one limit", "all owners", "breaker"],
)
def test_states_are_the_same_in_place_and_whole(single: Redis, stored: StoredPolicy) -> None:
    """After every call, both ways of writing leave the same bytes and have given the same answers."""
    before = in_place(single)

    @settings(machine.SHORT, max_examples=10)
    @given(STEPS)
    def both(steps: list[tuple[int, list[tuple[str, int]], int | None, BreakerVerdict]]) -> None:
        stores, number = (Store(single), Whole(single)), 0
        tenant = stores[0].tenant()
        for forward, rows, overrun, verdict in steps:
            asks = [
                Ask(request(tenant, f"r{number + i}", user=u, options=Options(estimate_tokens=tokens or None)), stored)
                for i, (u, tokens) in enumerate(rows)
            ]
            number += len(rows)
            decisions = []
            for store in stores:
                store.now += forward
                decisions.append(store.decide(*asks))
            assert [type(o) for o in decisions[0]] == [type(o) for o in decisions[1]]
            assert states(stores[0], tenant) == states(stores[1], tenant)
            for one, other in zip(*decisions, strict=True):
                if overrun is None or not (isinstance(one, Admitted) and isinstance(other, Admitted)):
                    continue
                corrections = (correction(overrun, TOKENS),) if TOKENS in stored.policy.limits else ()
                for store, admitted in zip(stores, (one, other), strict=True):
                    move = undispatched(
                        tenant,
                        admitted.decision_id,
                        verdict if stored.policy.breaker else BreakerVerdict.NEITHER,
                        stored.policy.breaker,
                        provider_entry("a"),
                        corrections=corrections,
                        charged_ms=store.now,
                    )
                    assert isinstance(store.settle(move)[0], Moved)
                assert states(stores[0], tenant) == states(stores[1], tenant)

    both()
    assert in_place(single) > before


@pytest.mark.parametrize(
    ("first", "second", "written"),
    [
        ((0, HOURLY, 0), (0, HOURLY, 0), 1),
        ((0, HOURLY, 0), (400_000, HOURLY, 0), 0),
        ((0, TOKENS, 50), (1, TOKENS, 70), 1),
        ((0, TOKENS, 50), (1, TOKENS, 0), 0),
        ((0, TOKENS, 50), (6_000, TOKENS, 70), 0),
        ((0, TOKENS, 50), (0, HOURLY, 0), 0),
        ((0, TOKENS, 50), (-5_000, TOKENS, 50), 1),
        ((0, TOKENS, 50), (-50_000, TOKENS, 50), 0),
    ],
    ids=["same", "rolled", "estimate", "nothing charged", "bucket later", "new limit", "clock back", "moved back"],
)
def test_what_is_written_in_place(
    single: Redis, first: tuple[int, Limit, int], second: tuple[int, Limit, int], written: int
) -> None:
    """Only charges of limits whose buckets have not rolled, and of limits that the state has."""
    store = Store(single)
    tenant = store.tenant()
    store.now = store.now // (60 * MINUTE) * 60 * MINUTE + 300
    for number, (forward, of, tokens) in enumerate((first, second)):
        before = in_place(single)
        store.now += forward
        wanted = request(tenant, f"r{number}", options=Options(estimate_tokens=tokens))
        assert isinstance(store.one(wanted, limited(of)), Admitted)
    assert in_place(single) - before == written


def test_a_charge_in_place_leaves_the_life_time_right(single: Redis) -> None:
    """At the server's own clock: after every call the state lasts until its last bucket has left."""
    store = Store(single, replace={"clock": (lua_dir() / "include" / "clock.lua").read_text()})
    tenant, before = store.tenant(), in_place(single)
    of, stored = store.of(tenant), limited(HOURLY, TOKENS, USER)
    for number in range(16):
        user = USERS[number % 2]
        options = Options(estimate_tokens=number % 3)
        assert isinstance(store.one(request(tenant, f"r{number}", user=user, options=options), stored), Admitted)
        for key in (of.state, of.user_state(user)):
            raw = store.value(key)
            assert raw is not None
            ends = [(index + 12) * -(-window // 11) for _, window, index, used, _ in limits_in(raw) if used > 0]
            # TIME is a little later than the moment from which Redis counts a life time. The narrowest bucket is 5 s.
            expires: Any = single.execute_command("PEXPIRETIME", key)  # type: ignore[no-untyped-call]
            assert expires >= max(ends) - 2_000
    assert in_place(single) > before


def test_less_is_written_for_one_limit(single: Redis) -> None:
    """Replicas and the AOF get 16 bytes of a state of one limit, not the whole."""
    store, seen = Store(single), []
    tenant = store.tenant()
    with single.monitor() as monitor:  # type: ignore[no-untyped-call]
        for number in range(3):
            store.one(request(tenant, f"r{number}"), limited(HOURLY))
        single.echo("the end")
        for command in monitor.listen():
            words = command["command"].split()
            if words[0] == "ECHO":
                break
            if words[0] == "SETRANGE":
                seen.append(words[2])
    assert seen == ["22", "22"]


async def test_limits_hold_where_setrange_is_forbidden(servers: None, tmp_path: Path) -> None:
    """The charges of every call count, in one batch and over several calls."""
    with LimitedValkey(tmp_path, "~* +@all -setrange") as server:
        nodes = SingleNode(server.pod_url)
        async with Pod(nodes, fresh_keys(), script=decide_script()) as pod:
            five = limited(limit("five", Scope.TENANT, Resource.REQUESTS, 5, 60 * MINUTE))
            outcomes = [await pod.decide(Ask(request("acme", f"r{i}"), five)) for i in range(3)]
            outcomes.append(await pod.decide(*(Ask(request("acme", f"s{i}"), five) for i in range(4))))
            assert [type(o) for several in outcomes for o in several] == [Admitted] * 5 + [LimitHit] * 2
        await nodes.close()
        with Redis.from_url(server.url) as client:
            stats: Any = client.info("commandstats")
        # Tried once, then not for a minute.
        assert stats["cmdstat_setrange"]["rejected_calls"] == 1


@pytest.mark.parametrize("kinds", [("in place", "whole"), ("whole", "in place"), ("whole", "in place", "in place")])
def test_pods_that_write_otherwise_share_a_limit(single: Redis, kinds: tuple[str, ...]) -> None:
    """Pods that take turns, some with SETRANGE, some without: the limit admits exactly its units."""
    makers: dict[str, Callable[[Client], Store]] = {"in place": Store, "whole": Whole}
    stores = [makers[kind](single) for kind in kinds]
    tenant = stores[0].tenant()
    for store in stores:
        store.keys = stores[0].keys
        store._packer = stores[0]._packer
    seven = limited(limit("seven", Scope.TENANT, Resource.REQUESTS, 7, 60 * MINUTE))
    outcomes = [stores[i % len(stores)].one(request(tenant, f"r{i}"), seven) for i in range(10)]
    assert [type(o) for o in outcomes] == [Admitted] * 7 + [LimitHit] * 3
