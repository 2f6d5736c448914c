"""The steps of a request: which decisions its caller has asked for, for results that name only the request."""

from typing import Any

import pytest
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted, Outcome, Replay, RowFault
from router.domain.decide.request import DecideRequest, Step
from router.domain.ids import Namespace, idempotency_name, name_in
from router.domain.policy.limits import limit
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.steps import MAX_STEPS, StepDecision
from router.domain.tasks.task import Moved, NotMoved, Unreadable
from router.store.claims import RedisClaims
from router.store.decisions import RedisAnswers
from router.store.servers.nodes import Nodes
from tests.store.harness import MINUTE, Store, policy, request, undispatched

POLICY = policy("a", "b")
FAILED = Step("503", "a")


def ask(tenant: str, step: Step = FAILED, name: str = "r", **more: Any) -> DecideRequest:
    """A step of a request."""
    return replace(request(tenant, name, **more), step=step)


def index(store: Store, tenant: str, name: str = "r", namespace: Namespace = "request") -> bytes:
    """The key of a request's index."""
    return store.of(tenant).steps(idempotency_name(tenant, namespace, name))


def listed(store: Store, tenant: str, namespace: Namespace = "request") -> set[bytes]:
    """The names in the index of request r."""
    names: Any = store.client.hkeys(index(store, tenant, namespace=namespace))
    return set(names)


def name_of(outcome: Outcome) -> bytes:
    """The idempotency name of a decision that was made."""
    assert isinstance(outcome, Admitted)
    return name_in(outcome.decision_id)


async def read(nodes: Nodes, store: Store, *names: tuple[str, str]) -> list[list[StepDecision] | Unreadable]:
    """The decisions of requests, as a pod reads them."""
    answers = RedisAnswers(store.keys, nodes)
    return await answers.of_requests([(tenant, idempotency_name(tenant, "request", name)) for tenant, name in names])


def test_only_a_step_is_listed(store: Store) -> None:
    """A request without a step writes no index, a preview of a step neither, nor a step that is refused."""
    tenant = store.tenant()
    store.one(ask(tenant, Step()), POLICY)
    store.preview(ask(tenant), POLICY)
    store.one(ask(tenant), policy())
    assert not store.client.exists(index(store, tenant))
    made = store.one(ask(tenant), POLICY)
    assert listed(store, tenant) == {name_of(made)}
    ttl: Any = store.client.pttl(index(store, tenant))
    assert 86_300_000 < ttl <= 86_400_000


def test_steps_of_one_identity_share_an_index(store: Store) -> None:
    """The identity is the idempotency key where there is one, and the request_id otherwise; never another's."""
    tenant = store.tenant()
    steps = [Step("503", "a", n) for n in range(3)]
    by_request = {name_of(store.one(ask(tenant, step), POLICY)) for step in steps}
    by_key = {name_of(store.one(replace(ask(tenant, step), idempotency_key="r"), POLICY)) for step in steps}
    store.one(ask(tenant, name="other"), POLICY)
    store.one(ask(store.tenant()), POLICY)
    assert listed(store, tenant) == by_request
    assert listed(store, tenant, "key") == by_key


def test_the_index_keeps_the_first_steps(store: Store) -> None:
    """64 of them; a step that is listed and decided again keeps its place, with its new time."""
    tenant = store.tenant()
    made = [store.one(ask(tenant, Step("503", "a", n)), POLICY) for n in range(MAX_STEPS + 3)]
    assert listed(store, tenant) == {name_of(m) for m in made[:MAX_STEPS]}
    first = name_of(made[0])
    before: Any = store.client.hget(index(store, tenant), first)
    store.client.delete(store.of(tenant).idem(first))
    store.now += 1_000
    assert isinstance(store.one(ask(tenant, Step("503", "a", 0)), POLICY), Admitted)
    after: Any = store.client.hget(index(store, tenant), first)
    assert after > before
    assert len(listed(store, tenant)) == MAX_STEPS


async def test_a_pod_reads_all_decisions_of_a_request(store: Store, store_nodes: Nodes) -> None:
    """That without a step first; then the steps with their times. Answers that have gone are left out."""
    tenant, other = store.tenant(), store.tenant()
    plain = store.one(ask(tenant, Step()), POLICY)
    times, names = [], []
    for n in range(3):
        store.now += 10
        names.append(name_of(store.one(ask(tenant, Step("503", "a", n)), POLICY)))
        times.append(store.now)
    store.client.delete(store.of(tenant).idem(names[1]))
    walk, none, single = await read(store_nodes, store, (tenant, "r"), (other, "r"), (tenant, "unknown"))
    assert not isinstance(walk, Unreadable)
    assert [(name_in(d.answer.decision_id), d.is_step) for d in walk[:1]] == [(name_of(plain), False)]
    found = {name_in(d.answer.decision_id): d.decided_ms for d in walk[1:]}
    assert found == {names[n]: pytest.approx(times[n], abs=1) for n in (0, 2)}
    assert none == single == []


async def test_what_cannot_be_read_hides_no_other_request(store: Store, store_nodes: Nodes) -> None:
    """An index of a wrong type or a newer format, and an answer of one, make their own request unreadable."""
    tenant = store.tenant()
    names = ("type", "format", "answer", "good")
    made = {n: store.one(ask(tenant, name=n), POLICY) for n in names}
    store.client.delete(index(store, tenant, "type"))
    store.client.set(index(store, tenant, "type"), "text")
    store.client.hset(index(store, tenant, "format"), name_of(made["format"]), b"\x02" + bytes(8))
    store.client.set(store.of(tenant).idem(name_of(made["answer"])), b"\x02")
    found = await read(store_nodes, store, *((tenant, n) for n in names))
    assert [isinstance(x, Unreadable) for x in found] == [True, True, True, False]


def test_an_index_of_a_wrong_type_charges_nothing(store: Store) -> None:
    """The row fails before its first charge, and another row of the call is made."""
    tenant = store.tenant()
    one = policy("a", limits=[limit("one", Scope.TENANT, Resource.REQUESTS, 1, MINUTE)])
    store.client.set(index(store, tenant), "text")
    assert isinstance(store.one(ask(tenant), one), RowFault)
    store.client.delete(index(store, tenant))
    assert isinstance(store.one(ask(tenant), one), Admitted)


async def test_a_settled_answer_keeps_the_mark_of_its_result(store: Store, store_nodes: Nodes) -> None:
    """So that a delivery of the same result is known again; without one, none is kept. Both are replayed as before."""
    tenant = store.tenant()
    reserved = policy("a", limits=[limit("t", Scope.TENANT, Resource.TOKENS, 100, MINUTE, default_estimate=1)])
    for stored in (POLICY, reserved):
        for name, mark in (("marked", b"a mark 8"), ("plain", b"")):
            wanted = request(tenant, name + str(stored is reserved))
            made = store.one(wanted, stored)
            assert isinstance(made, Admitted)
            before = store.one(wanted, stored)
            assert isinstance(before, Replay)
            move = undispatched(tenant, made.decision_id, BreakerVerdict.NEITHER, mark=mark)
            assert [type(x) for x in store.settle(move, move)] == [Moved, NotMoved]
            replay = store.one(wanted, stored)
            assert isinstance(replay, Replay)
            assert replay.remembered == replace(before.remembered, settled=True, mark=mark)
            (decisions,) = await read(store_nodes, store, (tenant, wanted.request_id))
            assert decisions == [StepDecision(replay.remembered, 0)]


@pytest.mark.parametrize("metadata", [{}, {"region": "eu"}])
async def test_an_answer_that_was_finished_takes_no_mark(
    store: Store, store_nodes: Nodes, metadata: dict[str, Any]
) -> None:
    """Earlier pods read what follows the figures of a finished answer as its metadata."""
    tenant = store.tenant()
    made = store.one(request(tenant, "r"), POLICY)
    assert isinstance(made, Admitted)
    assert await RedisClaims(store.keys, store_nodes).complete(
        tenant, made.decision_id, claim=b"claim", metadata=metadata
    )
    (moved,) = store.settle(undispatched(tenant, made.decision_id, BreakerVerdict.NEITHER, mark=b"a mark 8"))
    assert isinstance(moved, Moved)
    (decisions,) = await read(store_nodes, store, (tenant, "r"))
    assert not isinstance(decisions, Unreadable)
    assert [(d.answer.metadata, d.answer.settled, d.answer.mark) for d in decisions] == [(metadata, True, b"")]
