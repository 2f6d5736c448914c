"""What the audit log says of a decision's request, found by the moment of the decision."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted, Outcome, RequestFacts, StoredAnswer
from router.domain.decide.request import Correlation, DecideRequest
from router.domain.ids import name_in
from router.domain.policy.limits import limit
from router.domain.policy.vocabulary import Resource, Scope
from router.store.audit.request_facts import MAX_RECORDS
from router.store.servers.nodes import SingleNode
from tests.store.harness import MINUTE, Ask, policy, request
from tests.store.pods import PLAIN, Pod, fresh_keys


@pytest.fixture
async def pod(redis_url: str) -> AsyncIterator[Pod]:
    """A pod with a schema of its own."""
    nodes = SingleNode(redis_url)
    async with Pod(nodes, fresh_keys()) as pod:
        yield pod
    await nodes.close()


def wanted(tenant: str, name: str) -> DecideRequest:
    """A request whose record has something to say."""
    made = request(tenant, name, user=f"user-{name}")
    return replace(made, correlation=Correlation(f"trace-{name}"), client_ip="192.0.2.7")


def facts(name: str) -> RequestFacts:
    """What its record says."""
    return RequestFacts(name, "chat", f"trace-{name}", user_id=f"user-{name}", client_ip="192.0.2.7")


async def stored(pod: Pod, tenant: str, *outcomes: Outcome) -> list[tuple[str, StoredAnswer]]:
    """The answers of decisions."""
    names = [(tenant, name_in(o.decision_id)) for o in outcomes if isinstance(o, Admitted)]
    answers = await pod.decisions.stored_answers(names)
    return [(tenant, a) for a in answers if isinstance(a, StoredAnswer)]


async def test_every_decision_of_a_call_is_found(pod: Pod) -> None:
    """As many as a call has, of several tenants, with and without what reserves; each has its own request's."""
    reserving = policy("a", limits=[limit("t", Scope.TENANT, Resource.TOKENS, 10_000, MINUTE, default_estimate=1)])
    names = [f"r{n}" for n in range(60)]
    asks = {
        tenant: [Ask(wanted(tenant, name), reserving if tenant == "two" else PLAIN) for name in names]
        for tenant in ("one", "two", "three")
    }
    outcomes = await pod.decide(*(ask for group in zip(*asks.values(), strict=True) for ask in group))
    for n, tenant in enumerate(asks):
        found = await pod.decisions.request_facts(await stored(pod, tenant, *outcomes[n::3]))
        assert found == [facts(name) for name in names]


@pytest.mark.parametrize("others", [300, 2_000])
async def test_a_busy_tenants_decision_is_found(pod: Pod, others: int) -> None:
    """However many records of the tenant come before it within the same few ms: all of one call have one moment."""
    (made,) = await pod.decide(Ask(wanted("busy", "last"), PLAIN))
    answers = await stored(pod, "busy", made)
    log = pod.keys.tenant("busy").audit
    rows: Any = await pod.nodes.call("XRANGE", log, "-", "+")
    (entry_id, fields) = rows[0]
    await pod.nodes.call("DEL", log)
    ms = int(entry_id.partition(b"-")[0])
    other = fields[b"r"].replace(answers[0][1].decision_id, bytes(16))
    commands: list[Any] = [("XADD", log, f"{ms}-{n}", "r", other) for n in range(1, others + 1)]
    await pod.nodes.gather([*commands, ("XADD", log, f"{ms}-{others + 1}", "r", fields[b"r"])])
    assert await pod.decisions.request_facts(answers) == [facts("last")]


async def test_the_search_ends(pod: Pod) -> None:
    """Whatever is in the log: at most MAX_RECORDS are read, and the neighbours are found."""
    (made,) = await pod.decide(Ask(wanted("flood", "last"), PLAIN))
    answers = await stored(pod, "flood", made)
    answers += await stored(pod, "calm", *await pod.decide(Ask(wanted("calm", "r"), PLAIN)))
    log = pod.keys.tenant("flood").audit
    rows: Any = await pod.nodes.call("XRANGE", log, "-", "+")
    (entry_id, fields) = rows[0]
    await pod.nodes.call("DEL", log)
    ms = int(entry_id.partition(b"-")[0])
    commands: list[Any] = [("XADD", log, f"{ms}-{n}", "r", b"\x02\x00") for n in range(1, MAX_RECORDS + 1)]
    await pod.nodes.gather([*commands, ("XADD", log, f"{ms}-{MAX_RECORDS + 1}", "r", fields[b"r"])])
    assert await pod.decisions.request_facts(answers) == [None, facts("r")]


async def test_a_decision_without_a_record_has_no_facts(pod: Pod) -> None:
    """Its log was cut, is damaged, or holds records of newer pods only; its neighbours are found."""
    tenants = ("cut", "damaged", "newer", "good")
    answers = []
    for tenant in tenants:
        answers += await stored(pod, tenant, *await pod.decide(Ask(wanted(tenant, "r"), PLAIN)))
    logs = {tenant: pod.keys.tenant(tenant).audit for tenant in tenants}
    rows: Any = await pod.nodes.call("XRANGE", logs["newer"], "-", "+")
    await pod.nodes.call("DEL", logs["cut"])
    for tenant in ("damaged", "newer"):
        await pod.nodes.call("DEL", logs[tenant])
    await pod.nodes.call("SET", logs["damaged"], "text")
    entry_id, fields = rows[0]
    await pod.nodes.call("XADD", logs["newer"], entry_id, "r", b"\x09" + fields[b"r"][1:])
    assert await pod.decisions.request_facts(answers) == [None, None, None, facts("r")]
