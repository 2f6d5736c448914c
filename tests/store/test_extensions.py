"""The fleet's records of extensions: figures add up, the breaker is one for all pods, and everything has a bound."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.extensions.health import (
    BUCKETS,
    ERROR_RATE,
    FAILURES_IN_A_ROW,
    GENERATION_MS,
    MINIMUM_CALLS,
    OPEN_MS,
    ExtensionRecord,
    HealthStatus,
    Settled,
    Tally,
    percentile_ms,
    status,
)
from router.domain.extensions.pipeline import ExtensionName, Stage
from router.domain.levers import BreakerState
from router.store.extensions import figures, packed, record, settle_extensions_script, settled
from router.store.packing import FormatError
from tests.store.harness import TEST_CLOCK, Store

SCRIPT = settle_extensions_script(replace={"clock": TEST_CLOCK})
MASK = ExtensionName(Stage.PRE, "mask")
ONE, OTHER = b"probe-01", b"probe-02"


def seen(
    good: int = 0, bad: int = 0, *, name: ExtensionName = MASK, took_ms: int = 10, probe: bytes = bytes(8)
) -> Tally:
    """So many good calls, then so many bad ones."""
    tally = Tally(name, probe=probe)
    for i in range(good + bad):
        tally.saw(i < good, took_ms, at_ms=1_000 + i)
    return tally


def asks(probe: bytes, probe_ms: int = 500, name: ExtensionName = MASK) -> Tally:
    """A pod that would try an open breaker."""
    return Tally(name, probe=probe, probe_ms=probe_ms)


def settle(store: Store, *tallies: Tally) -> list[Settled]:
    """One call of the script."""
    reply = store.call(SCRIPT, [store.keys.extensions], [figures(), *map(packed, tallies)])
    assert reply[0] == 0
    return settled(tallies, reply)


def one(store: Store, tally: Tally) -> Settled:
    """One tally in a call of its own."""
    (found,) = settle(store, tally)
    return found


def opened(store: Store) -> ExtensionRecord:
    """The record after enough failures in a row."""
    found = one(store, seen(bad=FAILURES_IN_A_ROW))
    assert found.turned is BreakerState.OPEN
    return found.record


def test_what_pods_saw_adds_up(store: Store) -> None:
    """Counts, time and buckets of two pods' tallies, and the later of their last calls."""
    one(store, seen(good=3, bad=1, took_ms=4))
    found = one(store, seen(good=2, took_ms=40)).record
    assert (found.good, found.bad, found.took_ms) == (5, 1, 96)
    assert (found.last_good_ms, found.last_bad_ms, found.updated_ms) == (1_002, 1_003, store.now)
    assert (percentile_ms(found, 0.5), percentile_ms(found, 0.95)) == (5, 50)


def test_an_unknown_extension_that_nobody_called_is_not_kept(store: Store) -> None:
    """Looking at a record makes none."""
    assert one(store, Tally(MASK)).record.state is BreakerState.CLOSED
    assert store.client.exists(store.keys.extensions) == 0


def test_failures_in_a_row_open_whoever_saw_them(store: Store) -> None:
    """Two pods see half each; a success in between begins anew."""
    half = FAILURES_IN_A_ROW - 2
    assert one(store, seen(bad=half)).turned is None
    assert one(store, seen(good=1, bad=half)).turned is None
    found = one(store, seen(bad=2))
    assert (found.turned, found.record.state) == (BreakerState.OPEN, BreakerState.OPEN)
    assert found.record.open_until_ms == store.now + OPEN_MS


def test_the_error_rate_opens_with_enough_calls(store: Store) -> None:
    """Not before there were enough, and by the share of bad ones."""
    for _ in range((MINIMUM_CALLS - 2) // 2):
        assert one(store, Tally(MASK, 1, 1, 0, buckets=[2] + [0] * (BUCKETS - 1))).turned is None
    assert one(store, Tally(MASK, 1, 1, 0, buckets=[2] + [0] * (BUCKETS - 1))).turned is BreakerState.OPEN
    assert ERROR_RATE == 0.5


def test_one_pod_tries_an_open_breaker(store: Store) -> None:
    """Nobody before its time; then one pod, until its trial has run out; then another."""
    until = opened(store).open_until_ms
    store.now = until - 1
    assert one(store, asks(ONE)).record.probe == bytes(8)
    store.now = until
    first = one(store, asks(ONE))
    assert (first.turned, first.record.probe) == (BreakerState.HALF_OPEN, ONE)
    assert one(store, asks(OTHER)).record.probe == ONE
    store.now += 500
    assert one(store, asks(OTHER)).record.probe == OTHER


@pytest.mark.parametrize(("good", "to"), [(True, BreakerState.CLOSED), (False, BreakerState.OPEN)])
def test_the_trial_decides(store: Store, good: bool, to: BreakerState) -> None:
    """A good one closes; a bad one opens for the whole time again."""
    store.now = opened(store).open_until_ms
    one(store, asks(ONE))
    found = one(store, seen(int(good), int(not good), probe=ONE))
    assert (found.turned, found.record.state) == (to, to)
    assert found.record.open_until_ms == (0 if good else store.now + OPEN_MS)
    if good:
        assert one(store, seen(bad=FAILURES_IN_A_ROW - 1)).turned is None


def test_only_the_trial_decides(store: Store) -> None:
    """Late answers to calls from before it opened, and a trial that had run out, change nothing."""
    store.now = opened(store).open_until_ms
    assert one(store, seen(good=5)).record.state is BreakerState.OPEN
    one(store, asks(ONE))
    store.now += 500
    one(store, asks(OTHER))
    found = one(store, seen(good=1, probe=ONE))
    assert (found.turned, found.record.state, found.record.probe) == (None, BreakerState.HALF_OPEN, OTHER)


def test_figures_are_of_the_last_minutes(store: Store) -> None:
    """What is older than two generations does not count any more; health recovers."""
    sick = one(store, seen(good=1, bad=4)).record
    assert status(sick) is HealthStatus.UNHEALTHY
    store.now += 2 * GENERATION_MS
    well = one(store, seen(good=10)).record
    assert ((well.good, well.bad), status(well)) == ((10, 0), HealthStatus.HEALTHY)


def test_records_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the one that was updated longest ago goes; the key ends a day after the last call."""
    monkeypatch.setattr("router.store.extensions.MAX_RECORDS", 3)
    for i in range(5):
        store.now += 1
        one(store, seen(good=1, name=ExtensionName(Stage.POST, f"e{i}")))
    kept: Any = store.client.hkeys(store.keys.extensions)
    assert sorted(kept) == [b"post.e2", b"post.e3", b"post.e4"]
    left: Any = store.client.pttl(store.keys.extensions)
    assert 0 < left <= 86_400_000


def test_a_record_of_a_newer_version_is_said() -> None:
    """Not misread."""
    with pytest.raises(FormatError, match="format 9"):
        record("pre.mask", b"\x09" + struct.pack(">B", 0))


@given(
    pods=st.lists(
        st.lists(st.tuples(st.booleans(), st.integers(0, 9_000)), min_size=1, max_size=6), min_size=1, max_size=6
    )
)
def test_no_call_is_lost_or_doubled(store_at_once: Store, pods: list[list[tuple[bool, int]]]) -> None:
    """However calls are spread over tallies, the record counts each once, and opens when it must."""
    name = ExtensionName(Stage.VALIDATE, store_at_once.tenant())
    row, opened_at_some_time = 0, False
    good = bad = 0
    for calls in pods:
        tally = Tally(name)
        for ok, took in calls:
            tally.saw(ok, took, at_ms=store_at_once.now)
            good, bad = good + ok, bad + (not ok)
            row = 0 if ok else row + 1
        found = one(store_at_once, tally).record
        rate = good + bad >= MINIMUM_CALLS and bad >= ERROR_RATE * (good + bad)
        opened_at_some_time = opened_at_some_time or row >= FAILURES_IN_A_ROW or rate
        assert (found.state is BreakerState.OPEN) is opened_at_some_time
    assert (found.good, found.bad) == (good, bad)
    assert sum(found.buckets) == good + bad
    assert found.took_ms == sum(took for calls in pods for _, took in calls)
