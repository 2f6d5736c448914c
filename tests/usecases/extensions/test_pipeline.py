"""What extensions are sent, what their answers do, and that a request never waits longer for them than it may."""

import asyncio
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from router.domain.decide.decision import Code
from router.domain.decide.request import Correlation, DecideRequest
from router.domain.extensions.pipeline import CallOutcome, ExtensionName, Stage, refusal, wanted, worst_ms
from router.domain.levers import BreakerState
from router.domain.policy.model import Extension, Policy, provider
from router.domain.policy.vocabulary import OnFail
from router.ports.extensions import CallFailure
from router.telemetry import Telemetry
from router.usecases.extensions.health_watch import ExtensionHealthWatch
from router.usecases.extensions.pipeline import Pipeline
from tests.examples import examples
from tests.usecases.fakes.alerts import RecordedAlerts
from tests.usecases.fakes.extensions import Calls, Records

REQUEST = DecideRequest(
    "acme",
    "r",
    "default",
    "chat",
    bytes(8),
    payload={"text": "hello"},
    context={"tier": "gold"},
    metadata={"lang": "en"},
    correlation=Correlation("trace-1", traceparent="00-1-2-01"),
)
OK: dict[str, Any] = {}


class Room:
    """A pipeline and what is around it."""

    def __init__(self, calls: Calls) -> None:
        self.calls, self.records = calls, Records()
        self.telemetry = Telemetry(CollectorRegistry())
        self.watch = ExtensionHealthWatch(
            self.records, self.telemetry, RecordedAlerts(), now_ms=lambda: 1_000, random=os.urandom
        )
        self.pipeline = Pipeline(calls, self.watch, self.telemetry)
        self.until = asyncio.get_running_loop().time() + 5

    async def validated(self, *validators: Extension) -> list[CallOutcome]:
        """What came of each."""
        return [s.outcome for s in await self.pipeline.validate(REQUEST, validators, self.until)]


def step(name: str, *, required: bool = True, **more: Any) -> Extension:
    """For `pre` and `post`."""
    return Extension(name, required, **{"timeout_ms": 20} | more)


def validator(name: str, on_fail: OnFail = OnFail.BLOCK, **more: Any) -> Extension:
    """A validator."""
    return Extension(name, False, on_fail, **{"timeout_ms": 20} | more)


async def test_what_is_sent() -> None:
    """Trace, tenant, payload, metadata and the policy's config; tenant and trace in headers."""
    room = Room(Calls(pre_mask=OK))
    await room.pipeline.pre(REQUEST, [step("mask", config={"fields": ["x"]})], room.until)
    assert room.calls.of("pre.mask") == [
        {
            "trace_id": "trace-1",
            "tenant_id": "acme",
            "payload": {"text": "hello"},
            "metadata": {"lang": "en"},
            "config": {"fields": ["x"]},
        }
    ]
    assert room.calls.headers == [{"tenant_id": "acme", "trace_id": "trace-1", "traceparent": "00-1-2-01"}]


async def test_pre_extensions_build_on_each_other() -> None:
    """The second sees what the first made of payload and metadata; the fingerprint stays."""
    first = {"payload": {"text": "***"}, "metadata": {"masked": True}}
    room = Room(Calls(pre_mask=first, pre_tag={"metadata": {"lang": "de"}}))
    changed, steps = await room.pipeline.pre(REQUEST, [step("mask"), step("tag")], room.until)
    assert room.calls.of("pre.tag")[0]["payload"] == {"text": "***"}
    assert (changed.payload, changed.metadata) == ({"text": "***"}, {"lang": "de", "masked": True})
    assert changed.fingerprint == REQUEST.fingerprint
    assert [s.outcome for s in steps] == [CallOutcome.OK, CallOutcome.OK]


async def test_half_a_character_in_a_reply_costs_no_request() -> None:
    """A payload that an extension cut inside a character is read, and the defect is counted."""
    calls = Calls(pre_cut=b'{"payload": {"text": "cut \\ud83d"}}', validate_check=b'\xef\xbb\xbf{"valid": true}')
    room = Room(calls)
    request, steps = await room.pipeline.pre(REQUEST, [step("cut")], room.until)
    assert (request.payload, steps[0].outcome) == ({"text": "cut �"}, CallOutcome.OK)
    assert await room.validated(validator("check")) == [CallOutcome.OK]
    for defect in ("half_character", "byte_order_mark"):
        labels = {"message": "extension reply", "defect": defect}
        assert room.telemetry.registry.get_sample_value("router_input_defects_total", labels) == 1


async def test_validators_change_nothing_and_run_at_once() -> None:
    """Three that take 50 ms each are done in less than twice that; a payload in their answer is not taken."""
    answers: dict[str, Any] = {f"validate_v{i}": CallFailure.TIMEOUT for i in range(3)}
    room = Room(Calls(**answers))
    began = asyncio.get_running_loop().time()
    outcomes = await room.validated(*(validator(f"v{i}", timeout_ms=50) for i in range(3)))
    assert asyncio.get_running_loop().time() - began < 0.1
    assert outcomes == [CallOutcome.TIMEOUT] * 3


@pytest.mark.parametrize("reply", [{"valid": False}, {"status": "reject"}, {"valid": True, "status": "reject"}])
async def test_a_validator_refuses(reply: dict[str, Any]) -> None:
    """By `valid` or by `status`; its reason and details go to the caller."""
    room = Room(Calls(validate_pii=reply | {"reason": "a name", "details": {"field": "text"}}))
    (refused,) = await room.pipeline.validate(REQUEST, [validator("pii")], room.until)
    assert (refused.outcome, refused.stops) == (CallOutcome.REJECTED, True)
    answer = refusal(refused)
    assert answer.code is Code.VALIDATOR_BLOCKED
    assert answer.details == {
        "extension_id": "pii",
        "stage": "validate",
        "reason": "a name",
        "details": {"field": "text"},
    }


@pytest.mark.parametrize("on_fail", [OnFail.WARN, OnFail.IGNORE])
async def test_a_refusal_that_does_not_count(on_fail: OnFail) -> None:
    """Warn and ignore let it pass; only warn is told in the answer."""
    room = Room(Calls(validate_pii={"valid": False}))
    (found,) = await room.pipeline.validate(REQUEST, [validator("pii", on_fail)], room.until)
    assert (found.stops, found.warns) == (False, on_fail is OnFail.WARN)


GARBAGE = [
    b"",
    b"not json",
    b"[]",
    b"\xff\xfe",
    b'{"metadata": 1}',
    b'{"valid": "yes"}',
    b'{"status": 3}',
    b'{"stream": "X", "seq": 7}',
    b'{"payload": "' + b"x" * (1 << 20) + b'"}',
    b'{"payload": ' + b"[" * 400 + b"]" * 400 + b"}",
]


@pytest.mark.parametrize("reply", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_is_an_error(reply: bytes) -> None:
    """Not JSON, no object, wrong types, a stream's ack, too large, too deep."""
    room = Room(Calls(pre_mask=reply))
    _, (found,) = await room.pipeline.pre(REQUEST, [step("mask")], room.until)
    assert (found.outcome, found.stops) == (CallOutcome.ERROR, True)
    assert refusal(found).code is Code.EXTENSION_ERROR
    assert "mask" in refusal(found).message


@pytest.mark.parametrize(
    ("missed", "code", "bad"),
    [
        (CallFailure.TIMEOUT, Code.EXTENSION_TIMEOUT, 1),
        (CallFailure.NO_RESPONDERS, Code.EXTENSION_UNAVAILABLE, 1),
        (CallFailure.NOT_SENT, Code.EXTENSION_UNAVAILABLE, 0),
        (CallFailure.TOO_LARGE, Code.EXTENSION_ERROR, 0),
    ],
)
async def test_no_answer(missed: CallFailure, code: Code, bad: int) -> None:
    """Each has its code; what is not the extension's fault does not count against it."""
    room = Room(Calls(pre_mask=missed))
    _, (found,) = await room.pipeline.pre(REQUEST, [step("mask")], room.until)
    assert refusal(found).code is code
    await room.watch.drained()
    assert room.records.totals.get(ExtensionName(Stage.PRE, "mask"), [0, 0])[1] == bad


async def test_a_retry_may_save_it() -> None:
    """Two failures, then an answer, within `retry`; each call counts in its health."""
    room = Room(Calls(pre_mask=[b"?", CallFailure.NO_RESPONDERS, OK]))
    _, (found,) = await room.pipeline.pre(REQUEST, [step("mask", retry=2)], room.until)
    assert (found.outcome, found.calls) == (CallOutcome.OK, 3)
    await room.watch.drained()
    assert room.records.totals[ExtensionName(Stage.PRE, "mask")] == [1, 2]


async def test_the_time_for_all_bounds_each() -> None:
    """A call gets what is left of it, a step after its end is not called; a call cut short is not held against it."""
    room = Room(Calls(pre_slow=CallFailure.TIMEOUT, pre_next=OK))
    until = asyncio.get_running_loop().time() + 0.05
    slow = step("slow", required=False, timeout_ms=5000, retry=5)
    _, steps = await room.pipeline.pre(REQUEST, [slow, step("next")], until)
    assert [(s.outcome, s.calls) for s in steps] == [(CallOutcome.TIMEOUT, 1), (CallOutcome.TIMEOUT, 0)]
    assert asyncio.get_running_loop().time() - until < 4  # not the five seconds of its own
    assert room.records.totals.get(ExtensionName(Stage.PRE, "slow")) == [0, 0]


async def test_an_open_breaker_is_not_called() -> None:
    """Unavailable at once when another pod has the trial; the one that has it calls."""
    room = Room(Calls(pre_mask=OK))
    room.records.state, room.records.grants = BreakerState.OPEN, False
    _, (found,) = await room.pipeline.pre(REQUEST, [step("mask")], room.until)
    assert (found.outcome, found.calls) == (CallOutcome.UNAVAILABLE, 0)
    room.records.grants = True
    _, (found,) = await room.pipeline.pre(REQUEST, [step("mask")], room.until)
    assert (found.outcome, found.calls) == (CallOutcome.OK, 1)


async def test_extensions_are_called_while_the_store_is_away() -> None:
    """Health is worth nothing if it stops the work."""
    room = Room(Calls(pre_mask=OK))
    room.records.up = False
    _, (found,) = await room.pipeline.pre(REQUEST, [step("mask")], room.until)
    assert found.outcome is CallOutcome.OK


async def test_a_frozen_store_holds_no_call_up_for_long() -> None:
    """Its record is waited for a tenth of a second, not for the store's own time-out."""
    room = Room(Calls(pre_mask=OK))
    room.records.answers.clear()
    began = asyncio.get_running_loop().time()
    _, (found,) = await room.pipeline.pre(REQUEST, [step("mask", timeout_ms=1000)], room.until)
    assert found.outcome is CallOutcome.OK
    assert asyncio.get_running_loop().time() - began < 0.3
    room.records.answers.set()
    await room.watch.drained()


async def test_calls_of_an_extension_in_use_ask_the_store_once() -> None:
    """The first call reads its record; a hundred more within a second add no round trip of their own."""
    room = Room(Calls(pre_mask=OK))
    for _ in range(100):
        await room.pipeline.pre(REQUEST, [step("mask")], room.until)
    assert room.records.asked == 1
    room.records.told.clear()
    async with asyncio.timeout(2):
        await room.records.told.wait()
    assert room.records.totals[ExtensionName(Stage.PRE, "mask")] == [100, 0]


@pytest.mark.parametrize(("size", "outcome"), [(4000, CallOutcome.OK), (4200, CallOutcome.ERROR)])
async def test_what_post_adds_is_bounded(size: int, outcome: CallOutcome) -> None:
    """It is kept with every answer for a day."""
    room = Room(Calls(post_log={"metadata": {"x": "y" * size}}))
    (found,) = await room.pipeline.post(REQUEST, {}, [step("log")], room.until)
    assert found.outcome is outcome


async def test_post_is_told_the_decision() -> None:
    """In `metadata.decision`; it ends with the first required one that fails, and its refusal says why."""
    room = Room(Calls(post_log={"metadata": {"a": 1}}, post_sign=CallFailure.NO_RESPONDERS, post_last=OK))
    steps = await room.pipeline.post(
        REQUEST, {"provider_id": "p"}, [step("log"), step("sign"), step("last")], room.until
    )
    assert room.calls.of("post.log")[0]["metadata"] == {"lang": "en", "decision": {"provider_id": "p"}}
    assert room.calls.of("post.last") == []
    answer = refusal(steps[-1])
    assert (answer.code, answer.details["cause"]) == (Code.POST_PROCESSOR_FAILED, "extension_unavailable")


@pytest.mark.parametrize(
    ("when", "fits"),
    [
        ({}, True),
        ({"message_type": ["chat", "mail"]}, True),
        ({"message_type": ["mail"]}, False),
        ({"context": {"tier": ["gold"]}}, True),
        ({"context": {"tier": ["silver"]}}, False),
        ({"context": {"lang": ["en"]}}, True),
        ({"context": {"absent": ["x"]}}, False),
        ({"message_type": ["chat"], "context": {"tier": ["silver"]}}, False),
    ],
)
def test_when(when: dict[str, Any], fits: bool) -> None:
    """Task type, and texts of context or metadata; all must fit."""
    assert bool(wanted([step("e", when=when)], REQUEST)) is fits


ANSWERS = st.sampled_from([OK, {"valid": False}, b"?", CallFailure.NO_RESPONDERS, CallFailure.NOT_SENT])
EXTENSIONS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 2), st.lists(ANSWERS, min_size=1, max_size=3)), max_size=4
)


@examples(60)
@given(EXTENSIONS)
def test_a_request_ends_only_where_its_policy_says(drawn: list[tuple[bool, int, list[Any]]]) -> None:
    """Every step is called at most 1 + retry times; steps follow until a required one fails for good."""

    async def run() -> None:
        answers = {f"pre_e{i}": list(replies) for i, (_, _, replies) in enumerate(drawn)}
        room = Room(Calls(**answers))
        extensions = [step(f"e{i}", required=r, retry=n) for i, (r, n, _) in enumerate(drawn)]
        _, steps = await room.pipeline.pre(REQUEST, extensions, room.until)
        for found, (required, retry, replies) in zip(steps, drawn, strict=False):
            good = next((k for k, a in enumerate(replies) if isinstance(a, dict)), None)
            assert found.calls == min(1 + retry, 10 if good is None else good + 1)
            assert found.outcome.failed is (good is None or good > retry)
            assert found.stops is (found.outcome.failed and required)
        assert all(not s.stops for s in steps[:-1])
        assert len(steps) == len(drawn) or steps[-1].stops
        await room.watch.drained()

    asyncio.run(run())


def test_the_worst_case_is_bounded() -> None:
    """Calls in order add up, validators count once, and no policy takes longer than the bound."""
    chosen = (provider("a", weight=100),)
    policy = Policy(
        chosen,
        pre=(step("a", timeout_ms=100), step("b", timeout_ms=100, retry=1)),
        validators=(validator("c", timeout_ms=300), validator("d", timeout_ms=200)),
        post=(step("e", timeout_ms=50),),
    )
    assert worst_ms(policy, 10_000) == 120 + 2 * 120 + 320 + 70
    assert worst_ms(policy, 500) == 500
