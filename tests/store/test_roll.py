"""A rolling deploy: pods of the first version and of this one serve the same keys, in any order.

`tests/store/first` is what the first version sent, never to be changed. A script reads what its neighbour version
wrote: the state machines of test_machine run here with a version drawn before every step, and their models must hold.
"""

from pathlib import Path
from struct import Struct as Layout

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import rule
from redis import Redis

from router.domain.outcome import Admitted, Outcome, Replay
from router.domain.policy.model import Breaker, provider_entry
from router.domain.result import BreakerVerdict
from router.domain.task import Moved, Reservation
from router.store import settle_rows
from router.store.decide.batch import Batch
from router.store.decide.replies import BODY, DECIDE_RETURNS, NONE
from router.store.decisions import DECIDE_KEYS
from router.store.scripts import load
from router.store.settle_rows import MoveBatch
from router.store.tasks import SETTLE_KEYS, SETTLE_RETURNS
from tests.store import test_machine as machine
from tests.store.harness import TEST_CLOCK, Client, Store, policy, request, undispatched

FIRST = Path(__file__).parent / "first"
_FIRST_SETTLE_ROW = Layout(">IBHHHHHH16sBBBBHIdB8sIdIIIIBH")
# Of this version's row: the key of the live figures, and the two figures.
_NEW_FIELDS = frozenset((8, 25, 26))
_VERDICT = 17
_WAIT = 8


class Rolling(Store):
    """A store whose calls are made by pods of either version; `old`: the next ones are of the first."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.old = False
        self._scripts = self.decide_script, self.settle_script
        clock = {"clock": TEST_CLOCK}
        first_returns = {code: what for code, what in DECIDE_RETURNS.items() if code < 8}
        keys = tuple(k for k in DECIDE_KEYS if k not in {"log", "claim", "message"})
        settle_keys = tuple(k for k in SETTLE_KEYS if k not in {"log", "figures"})
        self._first = (
            load("decide", keys=keys, argv=("batch", "row"), returns=first_returns, folder=FIRST, replace=clock),
            load(
                "settle", keys=settle_keys, argv=("batch", "row"), returns=SETTLE_RETURNS, folder=FIRST, replace=clock
            ),
        )

    def roll(self, *, old: bool) -> None:
        """What comes next is asked by pods of that version."""
        self.old = old
        self.decide_script, self.settle_script = self._first if old else self._scripts

    def preview(self, *args: object, **kwargs: object) -> Outcome:
        """Only pods of this version look."""
        was = self.old
        self.roll(old=False)
        try:
            return super().preview(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            self.roll(old=was)

    def read(self, batch: Batch, replies: list[bytes]) -> list[Outcome]:
        """The first version did not count the verdicts of a refusal."""
        if self.old:
            end = BODY + _WAIT
            replies = [
                *replies[:3],
                *(r[:end] + bytes([len(r) - end]) + r[end:] if r[4] == NONE else r for r in replies[3:]),
            ]
        return super().read(batch, replies)

    def settle_rows(self, batch: MoveBatch) -> list[bytes]:
        """Rows as the version that asks makes them."""
        return [_first_row(row) for row in batch.rows] if self.old else batch.rows


def _first_row(row: bytes) -> bytes:
    now, size = settle_rows._ROW, settle_rows._SIZE
    given = list(now.unpack_from(row))
    if given[_VERDICT] == BreakerVerdict.NEITHER.value:
        # It told the breaker nothing then.
        given[_VERDICT] = 0
    fields = [f for i, f in enumerate(given) if i not in _NEW_FIELDS]
    # The features, whose length is the last field, and the usage; then what the caller is to be told, which is new.
    usage_end = now.size + fields[-1]
    usage_end += size.size + size.unpack_from(row, usage_end)[0]
    final_end = usage_end + size.size + size.unpack_from(row, usage_end)[0]
    return _FIRST_SETTLE_ROW.pack(*fields) + row[now.size : usage_end] + row[final_end:]


@pytest.fixture
def rolling(single: Redis) -> Rolling:
    """A fresh schema that both versions serve."""
    return Rolling(single)


class RollingDecisions(machine.Decisions):
    """Every step by a pod of either version; the first one knows no exact limits."""

    made_by = Rolling
    stored = machine.limited(machine.TOKENS, machine.USER, machine.PROVIDER, machine.SLOTS)

    @rule(old=some.booleans())
    def roll(self, old: bool) -> None:
        """The next pod."""
        assert isinstance(self.store, Rolling)
        self.store.roll(old=old)


class RollingBreakers(machine.Breakers):
    """Every step by a pod of either version; the first one knows no slow start."""

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

    @rule(old=some.booleans())
    def roll(self, old: bool) -> None:
        """The next pod."""
        assert isinstance(self.store, Rolling)
        self.store.roll(old=old)


class RollingModel(machine.BreakerModel):
    """A breaker that two versions keep."""

    def __init__(self, with_: Breaker, store: Rolling) -> None:
        super().__init__(with_)
        self.store = store

    def slow(self, now: int, part: float) -> bool:
        """Only this version turns requests away for a slow start."""
        return not self.store.old and super().slow(now, part)

    def let_go(self, decision: bytes, now: int) -> bool:
        """Only this version lets go of a probe whose result says nothing."""
        return not self.store.old and super().let_go(decision, now)

    def starts_slowly(self, now: int) -> None:
        """Only this version begins one."""
        if not self.store.old:
            super().starts_slowly(now)


SHORT = settings(machine.SHORT, max_examples=40)


def test_decisions_follow_the_model_while_versions_mix(single: Redis) -> None:
    """Limits, idempotency, pins and leases, whoever wrote them last."""
    machine.run(RollingDecisions, single, SHORT, minimum=1_200)


def test_breakers_follow_the_model_while_versions_mix(single: Redis) -> None:
    """Breakers, whoever wrote them last."""
    machine.run(RollingBreakers, single, SHORT, minimum=1_200)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("which", [RollingDecisions, RollingBreakers])
def test_versions_mix_for_long(single: Redis, which: type[RollingDecisions | RollingBreakers]) -> None:
    """The same for 300,000 steps each."""
    machine.run(which, single, machine.LONG, minimum=300_000)


@pytest.mark.parametrize("old_first", [True, False])
def test_an_answer_of_one_version_is_replayed_by_the_other(rolling: Rolling, old_first: bool) -> None:
    """The same decision, in both directions."""
    wanted, p = request(rolling.tenant(), "r", session="s"), policy("a", "b")
    rolling.roll(old=old_first)
    made = rolling.one(wanted, p)
    rolling.roll(old=not old_first)
    again = rolling.one(wanted, p)
    assert isinstance(made, Admitted)
    assert isinstance(again, Replay)
    assert again.remembered.decision_id == made.decision_id


def test_the_log_of_both_versions_is_read(rolling: Rolling) -> None:
    """Records of format 1 and of format 2 stand in one log; the newer ones say what the limits had left."""
    tenant, p = rolling.tenant(), policy("a", limits=[machine.USER])
    for old in (True, False):
        rolling.roll(old=old)
        rolling.one(request(tenant, f"{old}"), p)
    first, second = rolling.audit(tenant)
    assert (first.action, second.action) == ("decision.made", "decision.made")
    assert "limits" not in first.details
    assert second.details["limits"] == [{"limit_id": "user", "left_before": 5}]


@pytest.mark.parametrize("old_first", [True, False])
def test_a_result_settles_what_the_other_version_decided(rolling: Rolling, old_first: bool) -> None:
    """Remembered answers, reservations and breakers of one version are settled by the other."""
    breaker = Breaker(failure_threshold=1)
    tenant, p = rolling.tenant(), policy("a", breaker=breaker)
    rolling.roll(old=old_first)
    made = rolling.one(request(tenant, "r"), p)
    assert isinstance(made, Admitted)
    rolling.roll(old=not old_first)
    (moved,) = rolling.settle(
        undispatched(tenant, made.decision_id, BreakerVerdict.FAILURE, breaker, provider_entry("a"))
    )
    assert isinstance(moved, Moved)
    rolling.roll(old=old_first)
    assert not isinstance(rolling.one(request(tenant, "s"), p), Admitted)


def test_a_reservation_of_the_first_version_is_read() -> None:
    """It had no word for exact limits: it is of a sliding one."""
    packed = msgspec.msgpack.encode(("tenant", "", "tokens", b"12345678", 60_000, 7))
    assert msgspec.msgpack.decode(packed, type=Reservation) == Reservation(
        "tenant", "", "tokens", b"12345678", 60_000, 7
    )
