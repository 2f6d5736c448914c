"""lua/include/figures.lua: what successes teach stays within what they said, and never stands in a result's way."""

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from router.domain.decide.figures import NO_FIGURES, Live, Snapshot
from router.domain.decide.outcome import Admitted
from router.domain.policy.model import provider_entry
from router.domain.tasks.result import BreakerVerdict, Measurements
from router.domain.tasks.task import BreakerTurn, Move, Moved
from router.store.figures import RedisFigures, snapshot
from router.store.servers.nodes import SingleNode
from tests.store.harness import Ask, Store, policy, request, undispatched

HALF_LIFE_MS = 30_000
CLOSED = Moved(BreakerTurn.UNCHANGED)
FIGURES = some.floats(0, 1e9) | some.integers(0, 2**53).map(float)
COUNTS = some.lists(some.tuples(some.integers(0, 200_000), some.integers(0, 10**9)), min_size=1, max_size=25)


class Learner:
    """A fresh tenant and results of decisions that it has made."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tenant = store.tenant()
        self._asked = 0

    def moves(self, taught: Sequence[Measurements], provider: str = "a") -> list[Move]:
        """A result of a decision of its own for each."""
        first, self._asked = self._asked, self._asked + len(taught)
        asks = [Ask(request(self.tenant, f"r{i}"), policy("a")) for i in range(first, self._asked)]
        made = self.store.decide(*asks)
        return [
            undispatched(
                self.tenant, m.decision_id, BreakerVerdict.NEITHER, entry_of=provider_entry(provider), taught=t
            )
            for m, t in zip(made, taught, strict=True)
            if isinstance(m, Admitted)
        ]

    def learn(self, *taught: Measurements, provider: str = "a") -> None:
        """Settle them in one call."""
        outcomes = self.store.settle(*self.moves(taught, provider))
        assert outcomes == [CLOSED] * len(taught)

    @property
    def key(self) -> bytes:
        """Where its figures are."""
        return self.store.of(self.tenant).figures

    @property
    def snapshot(self) -> Snapshot:
        """Its figures as a pod reads them."""
        raw = self.store.value(self.key)
        return NO_FIGURES if raw is None else snapshot(raw)

    def live(self, provider: str = "a") -> Live:
        """One provider's figures."""
        return self.snapshot.live[provider_entry(provider)]


def test_a_result_is_the_figure_at_first(store: Store) -> None:
    """One success: its latency and cost with the weight of one result, as of now, for ten minutes."""
    learner = Learner(store)
    learner.learn(Measurements(120, 40))
    assert learner.snapshot == Snapshot(store.now, {provider_entry("a"): Live(120, 1, 40, 1)})
    ttl: object = store.client.pttl(learner.key)
    assert isinstance(ttl, int)
    assert 590_000 < ttl <= 600_000


def test_what_is_not_said_is_not_learned(store: Store) -> None:
    """A result without a cost teaches the latency only; one that says nothing makes no figures."""
    learner = Learner(store)
    learner.learn(Measurements(120, None))
    assert learner.live() == Live(120, 1, 0, 0)
    other = Learner(store)
    other.learn(Measurements())
    assert store.value(other.key) is None


def test_a_repeated_result_teaches_once(store: Store) -> None:
    """The second settlement of a decision changes nothing, figures included."""
    learner = Learner(store)
    (move,) = learner.moves([Measurements(100, 1)])
    store.settle(move, move)
    assert learner.live().latency_weight == 1


@given(results=some.lists(some.integers(0, 10**9), min_size=1, max_size=32), seed=some.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_results_of_one_moment_count_alike(store_at_once: Store, results: list[int], seed: object) -> None:
    """Up to 32 results at once, in any order and batching, make their arithmetic mean."""
    learner = Learner(store_at_once)
    seed.shuffle(results)  # type: ignore[attr-defined]
    half = len(results) // 2
    learner.learn(*[Measurements(x, x) for x in results[:half]])
    learner.learn(*[Measurements(x, x) for x in results[half:]])
    mean = sum(results) / len(results)
    live = learner.live()
    # The two calls are two versions: a millisecond apart, as far as weights go.
    assert live.latency_ms == pytest.approx(mean, rel=1e-3, abs=1e-3)
    assert live.cost_microusd == live.latency_ms


@given(results=COUNTS)
@settings(max_examples=40, deadline=None)
def test_a_figure_never_leaves_what_was_reported(store_at_once: Store, results: list[tuple[int, int]]) -> None:
    """Whatever comes whenever: a mean within the reported range, a weight of at most 32, a growing version."""
    learner = Learner(store_at_once)
    said: list[int] = []
    version = 0
    for wait_ms, figure in results:
        store_at_once.now += wait_ms
        said.append(figure)
        learner.learn(Measurements(figure, figure))
        live = learner.live()
        for mean, weight in ((live.latency_ms, live.latency_weight), (live.cost_microusd, live.cost_weight)):
            assert min(said) - 1e-6 <= mean <= max(said) + 1e-6
            assert 1 <= weight <= 32
        assert learner.snapshot.version > version
        version = learner.snapshot.version


def test_weights_halve(store: Store) -> None:
    """Another provider's result a half-life later finds half the weight and the same mean."""
    learner = Learner(store)
    learner.learn(*[Measurements(300, 7)] * 8)
    store.now += HALF_LIFE_MS
    learner.learn(Measurements(10, 1), provider="b")
    assert learner.live() == pytest.approx(Live(300, 4, 7, 4))


def test_a_step_back_of_the_clock_is_a_new_version(store: Store) -> None:
    """Weights do not grow, and the version goes on growing."""
    learner = Learner(store)
    learner.learn(Measurements(10, 1))
    before = learner.snapshot
    store.now -= 60_000
    learner.learn(Measurements(10, 1))
    assert learner.live() == Live(10, 2, 1, 2)
    assert learner.snapshot.version == before.version + 1


def test_a_clock_that_is_set_back_far_begins_anew(store: Store) -> None:
    """Else no weight would halve until the old time comes again."""
    learner = Learner(store)
    learner.learn(*[Measurements(900, 9)] * 5)
    store.now -= 3_600_000
    learner.learn(Measurements(10, 1))
    assert learner.snapshot == Snapshot(store.now, {provider_entry("a"): Live(10, 1, 1, 1)})


def test_the_old_and_the_many_are_dropped(store: Store) -> None:
    """At most 64 providers, the weightiest; one without results for long is not kept."""
    learner = Learner(store)
    learner.learn(Measurements(1, 1), provider="old")
    store.now += 20 * HALF_LIFE_MS
    for i in range(70):
        learner.learn(*[Measurements(i, i)] * (1 + (i < 60)), provider=f"p{i}")
    live = learner.snapshot.live
    assert len(live) == 64
    assert provider_entry("old") not in live
    assert all(provider_entry(f"p{i}") in live for i in range(60))


@pytest.mark.parametrize("there", [b"\x01", b"\x01" + bytes(30), b"", b"\x01" + b"\xff" * 48])
def test_damaged_figures_begin_anew(store: Store, there: bytes) -> None:
    """What cannot be read is no fault of a result, and no figure afterwards."""
    learner = Learner(store)
    store.client.set(learner.key, there)
    learner.learn(Measurements(5, 5))
    assert learner.snapshot.live == {provider_entry("a"): Live(5, 1, 5, 1)}


def test_a_wrong_type_begins_anew(store: Store) -> None:
    """Figures are a hint: whatever lies there is replaced."""
    learner = Learner(store)
    store.client.lpush(learner.key, "a list")
    learner.learn(Measurements(5, 5))
    assert learner.live() == Live(5, 1, 5, 1)


def test_a_newer_format_is_left_alone(store: Store) -> None:
    """During a roll an older script settles results and does not touch what a newer one has learned."""
    learner = Learner(store)
    store.client.set(learner.key, b"\x02something newer")
    learner.learn(Measurements(5, 5))
    assert store.value(learner.key) == b"\x02something newer"
    assert learner.snapshot == NO_FIGURES


async def test_snapshots_come_in_order(store_at_once: Store, redis_url: str) -> None:
    """A pod reads many tenants at once; those without figures have none."""
    learners = [Learner(store_at_once) for _ in range(3)]
    for i in (0, 2):
        learners[i].learn(Measurements(i, i))
    nodes = SingleNode(redis_url)
    try:
        found = await RedisFigures(store_at_once.keys, nodes).snapshots([x.tenant for x in learners])
    finally:
        await nodes.close()
    assert found == [learners[0].snapshot, NO_FIGURES, learners[2].snapshot]


@given(head=some.binary(max_size=12), body=some.binary(max_size=200))
def test_any_bytes_are_figures_or_none(head: bytes, body: bytes) -> None:
    """Reading never fails, and what is read is a number."""
    found = snapshot(head + body)
    good = snapshot(struct.pack(">Bd", 1, 5.0) + body[: len(body) // 40 * 40])
    for live in (*found.live.values(), *good.live.values()):
        assert all(0 <= x <= 2**53 for x in live)
