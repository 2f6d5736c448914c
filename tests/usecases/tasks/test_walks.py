"""Results of callers that walk the fallbacks by themselves, on a real store: each decision is settled by its own.

A model settles the same results one after another, by the rule of `domain.tasks.steps` in its own words. Whatever the
order, the batches and the repeats: the fleet settles, meters and dead-letters what the model does.
"""

import asyncio
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Any

import orjson
from hypothesis import HealthCheck, given, reject
from hypothesis import strategies as some
from msgspec import Struct
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted, Unavailable
from router.domain.decide.request import Options, Step
from router.domain.ids import to_text
from router.domain.policy.model import Fallback, Policy, StoredPolicy, provider
from router.errors import StoreError, StoreUnavailable
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from tests.examples import examples
from tests.store.harness import Ask
from tests.store.harness import request as plain
from tests.store.pods import Pod
from tests.usecases.fakes.bus import Message
from tests.usecases.fakes.settling import TENANT, Fate, World, result

NAMES = ("alpha", "beta", "gamma")
RULES = tuple(Fallback(to, (status,)) for status, to in (("503", "beta"), ("429", "gamma"), ("408", "alpha")))
STORED = StoredPolicy(
    "default",
    1,
    "0" * 16,
    Policy(tuple(provider(n, weight=100 if n == "alpha" else 0) for n in NAMES), fallbacks=RULES),
)
KEPT = 64
EXACTLY, BY_CONTEXT, BY_PROVIDER, BY_REQUEST = "decision_id", "context", "provider", "request"


class Told(Struct, frozen=True):
    """A result: how it names its decision, which one (an index, or a provider), and whether it is a success."""

    how: str
    which: int
    success: bool
    sequence: int


class Made(Struct):
    """A decision that was made: what the model knows of it."""

    decision_id: str
    provider: str
    step: Step
    listed: bool
    by: int | None = None
    metered: bool = False


def steps_of(numbers: Sequence[int]) -> list[Step]:
    """Different steps, of any provider's failure; 0 is the request without a step."""
    return [Step() if n == 0 else Step(("503", "429", "408")[n % 3], NAMES[n % 2], n) for n in numbers]


async def walk(world: World, name: str, steps: Sequence[Step]) -> list[Made]:
    """Ask for every step, one after the other."""
    made: list[Made] = []
    listed = 0
    for step in steps:
        wanted = replace(plain(TENANT, name, options=Options(meter=True)), step=step)
        ask = Ask(wanted, world.stored)
        (outcome,) = await world.pod.decide(ask)
        if isinstance(outcome, Unavailable):
            raise StoreUnavailable("the row was not answered in time")
        assert isinstance(outcome, Admitted)
        chosen = ask.plan.candidates[outcome.candidate].provider.name
        listed += bool(step.key)
        made.append(Made(to_text(outcome.decision_id), chosen, step, not step.key or listed <= KEPT))
    return made


def message(name: str, made: Sequence[Made], told: Told) -> bytes:
    """The result as it is sent."""
    named: dict[str, Any] = {"tenant_id": TENANT, "status": "success" if told.success else "error", "cost": 0.25}
    one = made[told.which % len(made)]
    if told.how == EXACTLY:
        return result(decision_id=one.decision_id, **named)
    if told.how == BY_CONTEXT:
        step = one.step
        context = {"status": step.status, "current_provider": step.current_provider}
        named["context"] = context | {"retry_attempts": step.retry_attempts}
    if told.how == BY_PROVIDER:
        named["provider_id"] = (*NAMES, "nobody")[told.which % 4]
    return result(request_id=name, **named)


def model(made: Sequence[Made], told: Told) -> bool:
    """Settle one result; False: it becomes a dead letter."""
    listed = [m for m in made if m.listed]
    if told.how in {EXACTLY, BY_CONTEXT}:
        fitting = [made[told.which % len(made)]]
    elif again := [m for m in made if m.by == told.sequence]:
        fitting = again
    elif all(not m.step.key for m in listed):
        fitting = listed
    elif told.how == BY_PROVIDER:
        fitting = [m for m in listed if m.provider == (*NAMES, "nobody")[told.which % 4]]
    else:
        fitting = listed
    opened = [m for m in fitting if m.by is None]
    if not fitting or (told.how == BY_REQUEST and len(opened) > 1):
        return False
    if opened:
        newest = opened[-1] if opened[-1].step.key or len(opened) == 1 else next(m for m in opened[::-1] if m.step.key)
        newest.by = told.sequence if told.how in {BY_PROVIDER, BY_REQUEST} else -1
        newest.metered = told.success
    return True


async def compare(made_world: Callable[[], Any], numbers: Sequence[int], batches: Sequence[Sequence[Told]]) -> None:
    """The fleet does what the model does."""
    world: World = await made_world()
    name = token_hex(4)
    made = await walk(world, name, steps_of(numbers))
    letters = 0
    settle, outbox = world.settle(Fate())
    for batch in batches:
        deliveries = [Message(t.sequence, message(name, made, t)) for t in batch]
        await settle.settle_batch(deliveries)
        assert [d.said for d in deliveries] == [["ack"]] * len(batch)
        letters += sum(not model(made, t) for t in batch)
    await outbox.drained()
    assert {u["usage_id"]: u["provider_id"] for u in world.usage_events} == {
        m.decision_id: m.provider for m in made if m.metered
    }
    assert len(world.usage_events) == sum(m.metered for m in made)
    assert [x["error_code"] for x in world.letters] == ["AMBIGUOUS_STEP"] * letters
    assert (await world.actions()).count("result.settled") == sum(m.by is not None for m in made)


@some.composite
def stories(draw: some.DrawFn) -> tuple[list[int], list[list[Told]]]:
    """Steps in any order, and batches of results; some are delivered again."""
    numbers = draw(some.lists(some.integers(0, 9), min_size=1, max_size=6, unique=True))
    hows = some.sampled_from((EXACTLY, BY_CONTEXT, BY_PROVIDER, BY_PROVIDER, BY_REQUEST))
    told = [
        Told(draw(hows), draw(some.integers(0, 11)), draw(some.booleans()), sequence)
        for sequence in range(draw(some.integers(1, 10)))
    ]
    again = draw(some.lists(some.sampled_from(told), max_size=4))
    every = [*told, *again] if draw(some.booleans()) else draw(some.permutations([*told, *again]))
    cuts = sorted(draw(some.sets(some.integers(1, len(every)), max_size=3)))
    return numbers, [every[a:b] for a, b in zip([0, *cuts], [*cuts, len(every)], strict=True) if a < b]


def test_any_results_in_any_order_settle_what_the_model_settles(redis_url: str) -> None:
    """Steps and results as they come: by decision_id, context, provider, or nothing but the request; unknown
    providers; repeats; in one batch or several."""
    with asyncio.Runner() as runner:
        nodes = SingleNode(redis_url)

        @examples(120, suppress_health_check=list(HealthCheck))
        @given(stories())
        def walks(story: tuple[list[int], list[list[Told]]]) -> None:
            runner.run(one(story))

        async def one(story: tuple[list[int], list[list[Told]]]) -> None:
            async with Pod(nodes, Keys(schema=f"s{token_hex(5)}")) as pod:

                async def world() -> World:
                    return World(pod, STORED)

                try:
                    await compare(world, *story)
                except StoreError:  # a machine that stalls for seconds says nothing of the rule
                    reject()

        walks()
        runner.run(nodes.close())


async def test_more_steps_than_are_listed(world: Callable[..., Any]) -> None:
    """Of 70 steps the last six are settled by decision_id and context only; results by provider settle the others, each
    once, and then repeat."""
    numbers = range(1, 71)
    by_provider = [Told(BY_PROVIDER, n % 3, True, n) for n in range(240)]
    exact = [Told((EXACTLY, BY_CONTEXT)[n % 2], n, True, 1_000 + n) for n in range(64, 70)]
    await compare(lambda: world(STORED), numbers, [by_provider[:120], exact, by_provider[120:]])


async def test_two_pods_settle_different_decisions(world: Callable[..., Any]) -> None:
    """Ten results of one provider, taken by two pods at the same time: ten decisions are metered, none twice."""
    here: World = await world(STORED)
    made = await walk(here, "r", [Step("503", "alpha", n) for n in range(1, 11)])
    (settle, outbox), (other, others) = here.settle(Fate()), here.settle(Fate())
    told = [message("r", made, Told(BY_PROVIDER, 1, True, n)) for n in range(10)]
    deliveries = [Message(n, data) for n, data in enumerate(told)]
    await asyncio.gather(settle.settle_batch(deliveries[::2]), other.settle_batch(deliveries[1::2]))
    await outbox.drained()
    await others.drained()
    assert sorted(here.usage) == sorted(m.decision_id for m in made)
    assert (await here.actions()).count("result.settled") == 10
    assert "result.duplicate" not in await here.actions()


async def test_a_result_that_comes_again_settles_no_other_step(world: Callable[..., Any]) -> None:
    """Its pod died before the ack, and meanwhile the caller asked for its next step: that one stays open."""
    here: World = await world(STORED)
    for name, told in (("only", {}), ("named", {"provider_id": "alpha"})):
        first, *_ = await walk(here, name, [Step()])
        data = orjson.dumps(orjson.loads(result(tenant_id=TENANT, request_id=name)) | {"status": "error"} | told)
        settle, outbox = here.settle(Fate())
        await settle.settle_batch([Message(7, data)])
        # The rule sends it to alpha again.
        (second,) = await walk(here, name, [Step("408", "beta")])
        assert (first.provider, second.provider) == ("alpha", "alpha")
        await settle.settle_batch([Message(7, data, delivered=2)])
        before = len(here.usage)
        await settle.settle_batch([Message(8, result(tenant_id=TENANT, request_id=name, provider_id="alpha"))])
        await outbox.drained()
        assert here.usage[before:] == [second.decision_id]
    assert here.letters == []
