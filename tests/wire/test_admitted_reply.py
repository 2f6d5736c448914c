"""Replies that are encoded from parts have the bytes of replies that are encoded whole."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from router.domain.decide.answers import admitted
from router.domain.decide.decision import PinState, Reason
from router.domain.decide.figures import Live, Snapshot
from router.domain.decide.outcome import Admitted
from router.domain.decide.plan import plan
from router.domain.decide.request import NO_CORRELATION, Correlation, DecideRequest, Options
from router.domain.policy.model import Fallback, Policy, Sticky, StoredPolicy, provider, provider_entry
from router.wire.admitted_reply import AdmittedReplies
from router.wire.reply import encode

# Text with everything that JSON escapes, and what it does not.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
REPLIES = AdmittedReplies()


@st.composite
def policies(draw: Any) -> StoredPolicy:
    """A policy with one to four providers, with and without pins and fallbacks."""
    pool = tuple(
        provider(f"{name}{i}", expected_latency_ms=latency, expected_cost_microusd=cost)
        for i, (name, latency, cost) in enumerate(
            draw(
                st.lists(
                    st.tuples(TEXT, st.integers(0, 100_000), st.sampled_from([0, 1, 1_500, 333_333, 10**9])),
                    min_size=1,
                    max_size=4,
                )
            )
        )
    )
    policy = Policy(
        pool,
        sticky=draw(st.sampled_from([None, Sticky()])),
        fallbacks=draw(st.sampled_from([(), (Fallback(pool[0].name, ("5xx",)),)])),
    )
    return StoredPolicy(draw(TEXT), draw(st.integers(1, 1 << 32)), "h", policy)


@given(data=st.data())
def test_parts_make_the_same_reply(data: st.DataObject) -> None:
    """Any policy, request, figures and outcome; the parts of earlier examples are there."""
    stored = data.draw(policies())
    request = DecideRequest(
        "acme",
        data.draw(TEXT),
        stored.policy_id,
        "chat",
        bytes(8),
        context=data.draw(st.sampled_from([{}, {"session_id": "é" * 400}, {"session_id": 'a "quoted" session'}])),
        correlation=data.draw(st.sampled_from([NO_CORRELATION, Correlation("trace-1"), Correlation('"\\\u2028')])),
        options=Options(estimate_tokens=7),
    )
    name = stored.policy.providers[0].name
    learned = Snapshot(7, {provider_entry(name): Live(data.draw(st.floats(1, 9_000)), 8.0, 12.5, 4.0)})
    made = plan(request, stored, snapshot=data.draw(st.sampled_from([learned, Snapshot(0, {})])))
    outcome = Admitted(
        data.draw(st.integers(0, len(made.candidates) - 1)),
        data.draw(st.sampled_from(list(Reason))),
        b"\1",
        data.draw(st.sampled_from(list(PinState))),
        data.draw(st.binary(min_size=16, max_size=16)),
    )
    answer = admitted(outcome, request, made, explain=False)
    whole = encode(answer, request_id=request.request_id, trace_id=request.correlation.trace_id)
    assert REPLIES.encode(request, made, outcome) == whole


def test_a_new_revision_has_a_reply_of_its_own() -> None:
    """Parts are found by all that they hold: policy, revision, provider, reason and figures."""
    replies = AdmittedReplies()
    request = DecideRequest("acme", "r", "default", "chat", bytes(8))
    for revision in (1, 2):
        for policy_id in ("default", "other"):
            for latency_ms in (100, 200):
                pool = (provider("p", expected_latency_ms=latency_ms),)
                made = plan(request, StoredPolicy(policy_id, revision, "h", Policy(pool)))
                for reason in Reason:
                    decision = orjson.loads(
                        replies.encode(request, made, Admitted(0, reason, b"\1", PinState.NONE, bytes(16)))
                    )["decision"]
                    said = [decision[k] for k in ("policy_revision", "policy_id", "expected_latency_ms", "reason")]
                    assert said == [revision, policy_id, latency_ms, reason.label]


def test_old_parts_are_dropped() -> None:
    """Figures that change for days do not fill a pod's memory."""
    replies = AdmittedReplies()
    request = DecideRequest("acme", "r", "default", "chat", bytes(8))
    for latency_ms in range(5_000):
        made = plan(request, StoredPolicy("default", 1, "h", Policy((provider("p", expected_latency_ms=latency_ms),))))
        replies.encode(request, made, Admitted(0, Reason.WEIGHTED, b"\1", PinState.NONE, bytes(16)))
    assert len(replies._heads) < 4_097
