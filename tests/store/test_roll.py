"""A rolling deploy: pods of earlier versions and of this one serve the same keys, in any order.

`tests/store/first` and `tests/store/before_layouts` are scripts of earlier versions, never to be changed. `older_rows`
makes their rows. A script reads what another version wrote: the state machines of test_machine run here with a version
drawn before every step, and their models must hold.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import rule
from redis import Redis

from router.domain.decide.outcome import Admitted, Busy, Outcome, Replay, RequestFacts, Reservation
from router.domain.decide.request import Options, Step
from router.domain.ids import name_in
from router.domain.policy.model import Breaker, provider_entry
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import Moved, NotMoved, TaskState
from router.store.decide.batch import Batch
from router.store.decide.replies import BODY, DECIDE_RETURNS, NONE
from router.store.decisions import DECIDE_KEYS
from router.store.packing import Extras
from router.store.scripts.load import Script, load
from router.store.tasks.settle_rows import MoveBatch
from router.store.tasks.store import SETTLE_KEYS, SETTLE_RETURNS
from tests.store import machine, older_rows
from tests.store.harness import TEST_CLOCK, Client, Store, policy, request, undispatched

HERE = Path(__file__).parent
NOW, FIRST, BEFORE_LAYOUTS = "now", "first", "before_layouts"
EARLIER = (FIRST, BEFORE_LAYOUTS)
_WAIT = 8


class Rolling(Store):
    """A store whose calls are made by pods of some version: NOW, or the folder of an earlier one's scripts."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.version = NOW
        first_returns = {code: what for code, what in DECIDE_RETURNS.items() if code < 8}
        before_keys = tuple(k for k in DECIDE_KEYS if k != "steps")
        first_keys = tuple(k for k in before_keys if k not in {"log", "claim", "message"})
        first_settle_keys = tuple(k for k in SETTLE_KEYS if k not in {"log", "figures"})
        self._scripts = {
            NOW: (self.decide_script, self.settle_script),
            FIRST: _scripts(FIRST, first_keys, first_returns, first_settle_keys),
            BEFORE_LAYOUTS: _scripts(BEFORE_LAYOUTS, before_keys, DECIDE_RETURNS, SETTLE_KEYS),
        }
        # A script that is loaded on its way counts as a change, and previews are held to make none.
        for decide, settle in self._scripts.values():
            self.load(decide)
            self.load(settle)

    def roll(self, version: str) -> None:
        """What comes next is asked by pods of that version."""
        self.version = version
        self.decide_script, self.settle_script = self._scripts[version]

    def preview(self, *args: object, **kwargs: object) -> Outcome:
        """Pods of the first version make no previews; those of the next one decide alike."""
        version = self.version
        if version == FIRST:
            self.roll(BEFORE_LAYOUTS)
        try:
            return super().preview(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            self.roll(version)

    def read(self, batch: Batch, replies: list[bytes]) -> list[Outcome]:
        """The first version did not count the verdicts of a refusal."""
        if self.version == FIRST:
            end = BODY + _WAIT
            replies = [
                *replies[:3],
                *(r[:end] + bytes([len(r) - end]) + r[end:] if r[4] == NONE else r for r in replies[3:]),
            ]
        return super().read(batch, replies)

    def decide_rows(self, batch: Batch) -> list[bytes]:
        """Rows as the version that asks makes them."""
        return batch.rows if self.version == NOW else [older_rows.decide_row(row) for row in batch.rows]

    def settle_rows(self, batch: MoveBatch) -> list[bytes]:
        """Rows as the version that asks makes them."""
        if self.version == NOW:
            return batch.rows
        convert = older_rows.first_settle_row if self.version == FIRST else older_rows.settle_row
        return [convert(row) for row in batch.rows]


def _scripts(
    version: str, keys: tuple[str, ...], returns: dict[int, str], settle_keys: tuple[str, ...]
) -> tuple[Script, Script]:
    both: dict[str, Any] = {"argv": ("batch", "row"), "folder": HERE / version, "replace": {"clock": TEST_CLOCK}}
    return (
        load("decide", keys=keys, returns=returns, **both),
        load("settle", keys=settle_keys, returns=SETTLE_RETURNS, **both),
    )


@pytest.fixture
def rolling(single: Redis) -> Rolling:
    """A fresh schema that both versions serve."""
    return Rolling(single)


class RollingDecisions(machine.Decisions):
    """Every step by a pod of any version; the first one knows no exact limits."""

    made_by = Rolling
    stored = machine.limited(machine.TOKENS, machine.USER, machine.PROVIDER, machine.SLOTS)

    @rule(version=some.sampled_from((NOW, *EARLIER)))
    def roll(self, version: str) -> None:
        """The next pod."""
        assert isinstance(self.store, Rolling)
        self.store.roll(version)

    def follows(self, pinned: str, step: Step, *, by_rule: bool) -> bool:
        """Earlier versions follow every pin."""
        assert isinstance(self.store, Rolling)
        return self.store.version != NOW or super().follows(pinned, step, by_rule=by_rule)


class RollingExact(RollingDecisions):
    """Every step by a pod of a version that knows exact limits."""

    stored = machine.Decisions.stored

    @rule(version=some.sampled_from((NOW, BEFORE_LAYOUTS)))
    def roll(self, version: str) -> None:
        """The next pod."""
        assert isinstance(self.store, Rolling)
        self.store.roll(version)


class RollingBreakers(machine.Breakers):
    """Every step by a pod of any version; the first one knows no slow start."""

    made_by = Rolling

    def __init__(self) -> None:
        super().__init__()
        assert isinstance(self.store, Rolling)
        self.models = {n: RollingModel(self.breaker, self.store) for n in "ab"}

    def forget(self) -> None:
        """As before, with models that know who asks."""
        assert isinstance(self.store, Rolling)
        for name, model in self.models.items():
            if model.kept <= self.store.now:
                self.models[name] = RollingModel(self.breaker, self.store)

    @rule(version=some.sampled_from((NOW, *EARLIER)))
    def roll(self, version: str) -> None:
        """The next pod."""
        assert isinstance(self.store, Rolling)
        self.store.roll(version)


class RollingModel(machine.BreakerModel):
    """A breaker that several versions keep."""

    def __init__(self, with_: Breaker, store: Rolling) -> None:
        super().__init__(with_)
        self.store = store

    def slow(self, now: int, part: float) -> bool:
        """The first version turns no request away for a slow start."""
        return self.store.version != FIRST and super().slow(now, part)

    def let_go(self, decision: bytes, now: int) -> bool:
        """The first version does not let go of a probe whose result says nothing."""
        return self.store.version != FIRST and super().let_go(decision, now)

    def kept_by_probes(self, now: int) -> int:
        """Earlier versions keep a closed breaker as long as its trip."""
        return now if self.store.version == NOW else self.kept

    def trip_kept(self) -> int:
        """Earlier versions forget a trip after twice its timeout, or after the window."""
        if self.store.version == NOW:
            return super().trip_kept()
        return max(self.with_.timeout_ms, self.with_.error_rate_window_ms)

    def starts_slowly(self, now: int) -> None:
        """The first version begins none."""
        if self.store.version != FIRST:
            super().starts_slowly(now)


SHORT = settings(machine.SHORT, max_examples=40)


def test_decisions_follow_the_model_while_versions_mix(single: Redis) -> None:
    """Limits, idempotency, pins and leases, whoever wrote them last."""
    machine.run(RollingDecisions, single, SHORT, minimum=1_200)


def test_exact_limits_follow_the_model_while_versions_mix(single: Redis) -> None:
    """Logs of exact limits and what results correct in them, whoever wrote them last."""
    machine.run(RollingExact, single, SHORT, minimum=1_200)


def test_breakers_follow_the_model_while_versions_mix(single: Redis) -> None:
    """Breakers, whoever wrote them last."""
    machine.run(RollingBreakers, single, SHORT, minimum=1_200)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("which", [RollingDecisions, RollingExact, RollingBreakers])
def test_versions_mix_for_long(single: Redis, which: type[RollingDecisions | RollingExact | RollingBreakers]) -> None:
    """The same for 300,000 steps each."""
    machine.run(which, single, machine.LONG, minimum=300_000)


@pytest.fixture(params=[(a, b) for earlier in EARLIER for a, b in ((earlier, NOW), (NOW, earlier))], ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """An earlier version and this one, in both orders."""
    versions: tuple[str, str] = request.param
    return versions


def test_an_answer_of_one_version_is_replayed_by_the_other(rolling: Rolling, pair: tuple[str, str]) -> None:
    """The same decision, in both directions."""
    wanted, p = request(rolling.tenant(), "r", session="s"), policy("a", "b")
    rolling.roll(pair[0])
    made = rolling.one(wanted, p)
    rolling.roll(pair[1])
    again = rolling.one(wanted, p)
    assert isinstance(made, Admitted)
    assert isinstance(again, Replay)
    assert again.remembered.decision_id == made.decision_id


def test_a_claim_of_one_version_keeps_the_other_away(rolling: Rolling) -> None:
    """A claim is one key of one format, wherever its row carries it."""
    for ours, theirs in ((NOW, BEFORE_LAYOUTS), (BEFORE_LAYOUTS, NOW)):
        wanted, p = request(rolling.tenant(), "r"), policy("a")
        rolling.roll(ours)
        assert isinstance(rolling.preview(wanted, p, claim_ms=60_000), Admitted)
        rolling.roll(theirs)
        assert isinstance(rolling.preview(wanted, p, claim_ms=60_000), Busy)


def test_a_message_is_found_whichever_version_indexed_it(rolling: Rolling) -> None:
    """The index of messages is written alike."""
    for version in (NOW, BEFORE_LAYOUTS):
        tenant = rolling.tenant()
        rolling.roll(version)
        made = rolling.one(request(tenant, "r", message_id="m"), policy("a"))
        assert isinstance(made, Admitted)
        index = rolling.of(tenant).message("m")
        assert rolling.client.hget(index, tenant) == name_in(made.decision_id)


def test_the_log_of_all_versions_is_read(rolling: Rolling) -> None:
    """Records of format 1 and of format 2 stand in one log; the newer ones say what the limits had left."""
    tenant, p = rolling.tenant(), policy("a", limits=[machine.USER])
    for version in (*EARLIER, NOW):
        rolling.roll(version)
        rolling.one(request(tenant, version), p)
    first, *newer = rolling.audit(tenant)
    assert {e.action for e in (first, *newer)} == {"decision.made"}
    assert "limits" not in first.details
    assert [e.details["limits"] for e in newer] == [[{"limit_id": "user", "left_before": n}] for n in (5, 4)]


def test_a_result_settles_what_the_other_version_decided(rolling: Rolling, pair: tuple[str, str]) -> None:
    """Remembered answers, reservations and breakers of one version are settled by the other."""
    breaker = Breaker(failure_threshold=1)
    tenant, p = rolling.tenant(), policy("a", breaker=breaker)
    rolling.roll(pair[0])
    made = rolling.one(request(tenant, "r"), p)
    assert isinstance(made, Admitted)
    rolling.roll(pair[1])
    (moved,) = rolling.settle(
        undispatched(tenant, made.decision_id, BreakerVerdict.FAILURE, breaker, provider_entry("a"))
    )
    assert isinstance(moved, Moved)
    rolling.roll(pair[0])
    assert not isinstance(rolling.one(request(tenant, "s"), p), Admitted)


def test_a_marked_answer_is_replayed_and_not_settled_again_by_earlier_pods(rolling: Rolling) -> None:
    """What this version adds to a settled answer is behind all that they read."""
    for version in EARLIER:
        rolling.roll(NOW)
        wanted = request(rolling.tenant(), "r")
        made = rolling.one(wanted, policy("a"))
        assert isinstance(made, Admitted)
        move = undispatched(wanted.tenant_id, made.decision_id, BreakerVerdict.NEITHER, mark=b"a mark 8")
        assert isinstance(rolling.settle(move)[0], Moved)
        rolling.roll(version)
        assert isinstance(rolling.one(wanted, policy("a")), Replay)
        assert rolling.settle(move) == [NotMoved(TaskState.SUCCEEDED, 0)]


def test_facts_of_a_metered_request_are_passed_over_by_earlier_pods(rolling: Rolling) -> None:
    """They are a last field: earlier versions read the fields before it, and this one reads answers without it."""

    class Before(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
        requires_cp: tuple[str, ...] = ()
        reserved: tuple[Reservation, ...] = ()
        unfinished: bool = False

    now = Extras(("pins",), facts=RequestFacts("r", "chat", step_id="s"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(now), type=Before) == Before(("pins",))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Before(("pins",))), type=Extras) == Extras(("pins",))
    for version in (BEFORE_LAYOUTS, NOW):
        rolling.roll(version)
        wanted = request(rolling.tenant(), "r", options=Options(meter=True))
        rolling.one(wanted, policy("a"))
        rolling.roll(NOW)
        replay = rolling.one(wanted, policy("a"))
        assert isinstance(replay, Replay)
        assert replay.remembered.facts == RequestFacts("r", "chat")


def test_only_a_metered_decision_that_is_not_pushed_keeps_facts(rolling: Rolling) -> None:
    """Others pay no byte for it: a task has a record of its own."""
    for options, push in ((Options(), False), (Options(), True), (Options(meter=True), True)):
        wanted = request(rolling.tenant(), "r", push=push, options=options)
        rolling.one(wanted, policy("a"), b"job" if push else None)
        replay = rolling.one(wanted, policy("a"), b"job" if push else None)
        assert isinstance(replay, Replay)
        assert replay.remembered.facts is None


def test_a_reservation_of_the_first_version_is_read() -> None:
    """It had no word for exact limits: it is of a sliding one."""
    packed = msgspec.msgpack.encode(("tenant", "", "tokens", b"12345678", 60_000, 7))
    assert msgspec.msgpack.decode(packed, type=Reservation) == Reservation(
        "tenant", "", "tokens", b"12345678", 60_000, 7
    )


def test_earlier_pods_keep_what_a_step_back_of_the_clock_left(rolling: Rolling) -> None:
    """The note is packed as a limit that no row names: they charge beside it, write it back, and count as before."""
    for version in EARLIER:
        tenant, p = rolling.tenant(), policy("a", limits=[machine.USER])
        rolling.roll(NOW)
        rolling.now += 2 * 3_600_000
        assert isinstance(rolling.one(request(tenant, "ahead"), p), Admitted)
        rolling.now -= 2 * 3_600_000
        assert isinstance(rolling.one(request(tenant, "back"), p), Admitted)
        (state,) = rolling.client.scan_iter(rolling.of(tenant).prefix + b"su:*")
        rolling.roll(version)
        left = machine.USER.limit - 2
        made = [rolling.one(request(tenant, f"r{i}"), p) for i in range(left + 1)]
        assert [isinstance(o, Admitted) for o in made] == [True] * left + [False]
        assert b"moved\0\0\0" in (rolling.value(state) or b"")
