"""Fair admission: whoever floods, the next tenant finds a place, and floods share what there is."""

from collections import Counter, deque
from itertools import cycle

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.domain.decide.admission import LOADING, MIN_SHARE, Admission
from tests.examples import examples

HOLDERS = [LOADING, *(f"t{n}" for n in range(6))]


def offer(admission: Admission, holder: str) -> bool:
    """One request, by the rules of `usecases.decide.overload`; whether it is in."""
    if admission.in_flight >= admission.bound:
        return False
    if admission.in_flight >= admission.crowded_at and not admission.admits(holder):
        return False
    admission.enter(holder)
    return True


class Machine(RuleBasedStateMachine):
    """Requests of some holders come, are refused, end and change their holder, in any order."""

    @initialize(bound=st.integers(1, 200))
    def begin(self, bound: int) -> None:
        """A pod."""
        self.admission = Admission(bound)
        self.inside: Counter[str] = Counter()

    @rule(holder=st.sampled_from(HOLDERS), count=st.integers(1, 60))
    def come(self, holder: str, count: int) -> None:
        """Each is admitted exactly if the model says so."""
        for _ in range(count):
            total, bound = self.inside.total(), self.admission.bound
            fits = total < max(1, bound // 2) or self.inside[holder] < max(MIN_SHARE, bound - total)
            assert offer(self.admission, holder) is (total < bound and fits)
            self.inside[holder] += total < bound and fits

    @precondition(lambda self: self.inside.total() > 0)
    @rule(data=st.data(), count=st.integers(1, 60))
    def end(self, data: st.DataObject, count: int) -> None:
        """Some of a holder's requests are answered."""
        holder = data.draw(st.sampled_from(sorted(self.inside.elements())))
        for _ in range(min(count, self.inside[holder])):
            self.admission.leave(holder)
            self.inside[holder] -= 1

    @precondition(lambda self: self.inside[LOADING] > 0)
    @rule(holder=st.sampled_from(HOLDERS[1:]))
    def loaded(self, holder: str) -> None:
        """A request's policies are there: it is its tenant's from now on."""
        self.admission.move(LOADING, holder)
        self.inside[LOADING] -= 1
        self.inside[holder] += 1

    @invariant()
    def counts(self) -> None:
        """In all and by holder; who has none is not listed."""
        if hasattr(self, "admission"):
            assert self.admission.in_flight == self.inside.total() <= self.admission.bound
            assert self.admission.held == {h: n for h, n in self.inside.items() if n}

    @invariant()
    def one_flood_leaves_room(self) -> None:
        """With one holder in the pod, another one is admitted."""
        if hasattr(self, "admission") and len(self.admission.held) == 1 and self.admission.bound >= 2 * MIN_SHARE:
            assert offer(self.admission, "newcomer")
            self.admission.leave("newcomer")


TestMachine = Machine.TestCase
TestMachine.settings = examples(60, stateful_step_count=30)


@pytest.mark.parametrize("bound", [64, 1024, pytest.param(5000, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("floods", [1, 2, 3, 7])
def test_floods_share_and_leave_a_share_free(bound: int, floods: int) -> None:
    """After a while n floods hold bound ÷ (n + 1) each, or `MIN_SHARE`, whoever came first; a newcomer is admitted."""
    admission = Admission(bound)
    order: deque[str] = deque()
    names = [f"flood-{n}" for n in range(floods)]
    for name in names:  # the first one finds an empty pod
        while offer(admission, name):
            order.append(name)
    for name, _ in zip(cycle(names), range(20 * bound), strict=False):
        admission.leave(order.popleft())  # the oldest is answered, and everybody tries again
        order += [n for n in (name, *names) if offer(admission, n)]
    share = max(MIN_SHARE, bound // (floods + 1))
    assert all(abs(admission.held[n] - share) <= 2 for n in names), admission.held
    assert admission.in_flight < bound
    assert offer(admission, "newcomer")


def test_an_equal_share_would_leave_no_room() -> None:
    """Why one share stays free: by bound ÷ n, a tenant that floods alone fills the pod, and the next finds it full."""
    admission = Admission(1024)
    while admission.in_flight < admission.bound and admission.held.get("flood", 0) < admission.bound // max(
        1, len(admission.held)
    ):
        admission.enter("flood")
    assert not offer(admission, "victim")


def test_a_small_pod_holds_one_tenant_to_its_bound() -> None:
    """Below `MIN_SHARE` nobody is held back: a bound of 8 is a bound of 8."""
    admission = Admission(8)
    assert [offer(admission, "acme") for _ in range(9)] == [True] * 8 + [False]


def test_requests_that_wait_for_policies_are_one_holder() -> None:
    """A thousand invented names leave half of the pod to known tenants."""
    admission = Admission(1024)
    assert sum(offer(admission, LOADING) for _ in range(5000)) == 512
    assert sum(offer(admission, "acme") for _ in range(5000)) == 256
