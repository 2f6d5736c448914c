"""Layouts: what packers write is read back under the names of the table, field by field."""

from itertools import count

import pytest
from msgspec.msgpack import Decoder
from msgspec.structs import replace

from router.domain.audit.records import DecisionFeatures, policy_frame
from router.domain.decide.outcome import Reservation
from router.domain.decide.plan import plan
from router.domain.decide.request import Correlation, DecideRequest, Options, Step
from router.domain.ids import idempotency_name, task_id
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Sticky, provider
from router.domain.policy.vocabulary import Algorithm, Resource, Scope, WhenAllOpen
from router.domain.tasks.result import BreakerVerdict, Measurements
from router.domain.tasks.task import Action, Correction, Final, Move, TaskFacts, TaskState
from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.rows import JOB_GRACE_MS, MAX_BACKOFF_MS, RowPacker
from router.store.keys import Keys
from router.store.scripts import layouts
from router.store.scripts.layout import Layout
from router.store.scripts.layouts import LAYOUTS, NAMES
from router.store.tasks.records import final
from router.store.tasks.settle_rows import MoveBatch
from router.usecases.audit.features import features_of_decision
from tests.store import layout_reader
from tests.store.harness import FEATURES, MINUTE, policy, request

KEYS = Keys(schema="t")
TENANT = KEYS.tenant("acme")
REQUESTS = limit("requests", Scope.TENANT, Resource.REQUESTS, 11, MINUTE)
USERS = limit("users", Scope.USER, Resource.TOKENS, 1_300, 2 * MINUTE, algorithm=Algorithm.LOG)
SLOTS = limit("slots", Scope.POLICY, Resource.CONCURRENCY, 17, 0)
OWN = limit("own", Scope.PROVIDER, Resource.REQUESTS, 19, 3 * MINUTE)
POLICY = policy(
    provider("a", max_concurrency=23, expected_latency_ms=29),
    limits=[REQUESTS, USERS, SLOTS, OWN],
    breaker=Breaker(half_open_max_calls=5, when_all_open=WhenAllOpen.LAST_RESORT),
    sticky=Sticky(ttl_ms=31_000),
)


def packed(request: DecideRequest, **more: object) -> tuple[layout_reader.Fields, list[bytes], WaitingRow]:
    """The row of a request, read by name; the keys of its call; its caller."""
    numbers = count(1)
    packer = RowPacker(KEYS, lambda n: b"".join(next(numbers).to_bytes(4) for _ in range(n // 4)))
    planned = plan(request, POLICY)
    job = b"work" if request.push_assignment else None
    decision = packer.decision_id(TENANT, planned)
    w = WaitingRow(request, planned, TENANT, job, lambda _o, _s: None, decision, 0)
    for name, value in more.items():
        setattr(w, name, value)
    batch = Batch()
    packer.add(batch, w, 37, 41.5)
    return layout_reader.decide_row(batch.rows[0]), list(batch.index), w


def test_a_pushed_row_has_every_field_under_its_name() -> None:
    """Keys, numbers and texts differ from each other, so that no two can be swapped unnoticed."""
    wanted = request("acme", "r", session="s", user="u", push=True, options=Options(meter=True))
    row, keys, w = packed(wanted)
    task, planned = task_id(w.decision), w.plan
    assert planned.pin is not None
    named = {name: keys[k - 1] for name, k in row.items() if name.startswith("k_")}
    assert named == {
        "k_idem": TENANT.idem(planned.name),
        "k_head": TENANT.head,
        "k_state": TENANT.state,
        "k_audit": TENANT.audit,
        "k_pin": TENANT.pin(planned.pin.name),
        "k_task": TENANT.task(task),
        "k_due": TENANT.due,
        "k_job": TENANT.job(task),
    }
    assert (row["nonce"], row["not_after"]) == (37, 41.5)
    assert row["flags"] == layouts.ROW_RESERVED | layouts.ROW_METER | layouts.ROW_RENEW
    assert row["fingerprint"] == wanted.fingerprint[:5] + TENANT.owner
    assert row["decision"] == w.decision
    assert (row["all_open"], row["probes_max"], row["attempt"]) == (2, 5, 1)
    assert (row["n_charges"], row["n_candidates"], row["extra_bytes"]) == (3, 1, 0)
    assert (row["lease_ms"], row["pin_ms"]) == (planned.deadline_ms, 31_000)
    assert row["job_ms"] == planned.max_attempts * (planned.deadline_ms + MAX_BACKOFF_MS) + JOB_GRACE_MS
    assert b"chat" in row["features"]
    assert b"default" in row["tail"]
    assert b"acme" in row["facts"]


def test_a_record_and_a_task_keep_what_the_request_says() -> None:
    """Audit features and facts of a task are packed by their position; no two texts of the request are swapped."""
    wanted = replace(
        request("acme", "r", session="s", user="u", push=True),
        client_ip="192.0.2.7",
        correlation=Correlation("trace", "run", "flow", "step"),
    )
    row, _, w = packed(wanted)
    features = Decoder(DecisionFeatures).decode(row["features"])
    assert features == features_of_decision(wanted, w.plan)
    assert features == DecisionFeatures(
        request_id="r",
        task_type=wanted.task_type,
        user_id="u",
        ip_address="192.0.2.7",
        trace_id="trace",
        figures_version=w.plan.figures_version,
        frame=policy_frame(w.plan),
    )
    facts = Decoder(TaskFacts).decode(row["facts"])
    assert (facts.tenant_id, facts.request_id, facts.user_id, facts.client_ip) == ("acme", "r", "u", "192.0.2.7")
    assert (facts.trace_id, facts.run_id, facts.flow_id, facts.step_id) == ("trace", "run", "flow", "step")


def test_charges_and_candidates_have_every_field_under_its_name() -> None:
    """Of each kind one, with keys, windows, limits and units of its own."""
    row, keys, _ = packed(request("acme", "r", user="u", options=Options(estimate_tokens=43)))
    sliding, log, lease = row["charges"]
    (candidate,) = row["candidates"]
    (own,) = candidate["charges"]
    read = [
        (keys[c["k"] - 1], c["kind"], c["options"], c["id"], c["window_ms"], c["limit"], c["units"])
        for c in (sliding, log, lease, own)
    ]
    assert read == [
        (TENANT.state, layouts.KIND_SLIDING, 0, REQUESTS.entry, MINUTE, 11, 1),
        (TENANT.log(USERS.entry + b":u"), layouts.KIND_LOG, 0, USERS.entry, 2 * MINUTE, 1_300, 43),
        (TENANT.lease(SLOTS.entry + b":default"), layouts.KIND_CONCURRENCY, 0, SLOTS.entry, 0, 17, 1),
        (TENANT.provider_state("a"), layouts.KIND_SLIDING, 0, OWN.entry, 3 * MINUTE, 19, 1),
    ]
    a = POLICY.policy.providers[0]
    assert (candidate["entry"], candidate["bound"], candidate["n_charges"]) == (a.entry, 23, 1)
    assert keys[candidate["k_lease"] - 1] == TENANT.lease(a.entry)
    assert candidate["offer"].endswith(b"a")


def test_a_claim_and_a_message_have_parts_of_their_own() -> None:
    """Neither borrows a field of pushed rows; a row with both has both, in the order of their flags."""
    row, keys, w = packed(request("acme", "r", message_id="m"), preview=True, claim_ms=47)
    asked = layouts.ROW_PREVIEW | layouts.ROW_CLAIM | layouts.ROW_EXPLAIN | layouts.ROW_MESSAGE
    assert row["flags"] == layouts.ROW_RESERVED | asked
    assert row["extra_bytes"] == layouts.CLAIM.size + layouts.MESSAGE.size
    assert (row["k_task"], row["k_due"], row["k_job"], row["job_ms"]) == (0, 0, 0, 0)
    assert (keys[row["k_claim"] - 1], row["claim_ms"]) == (TENANT.claim(w.plan.name), 47)
    assert keys[row["k_message"] - 1] == TENANT.message("m")


@pytest.mark.parametrize("key", [None, "k"])
def test_a_step_has_a_part_of_its_own(key: str | None) -> None:
    """Behind that of the message; it names the identity without the step. A preview and a next attempt have none."""
    step = replace(request("acme", "r", message_id="m"), step=Step("503", "a"), idempotency_key=key)
    row, keys, w = packed(step)
    assert row["flags"] == layouts.ROW_RESERVED | layouts.ROW_RENEW | layouts.ROW_MESSAGE | layouts.ROW_STEPS
    assert row["extra_bytes"] == layouts.MESSAGE.size + layouts.STEPS.size
    identity = idempotency_name("acme", "request" if key is None else "key", key or "r")
    assert keys[row["k_steps"] - 1] == TENANT.steps(identity)
    assert identity != w.plan.name
    for more in ({"preview": True}, {"attempt": 2, "reserved": ()}):
        assert not packed(step, **more)[0]["flags"] & layouts.ROW_STEPS
    for none in (Step(), Step(None, None, 0)):
        assert not packed(replace(step, step=none))[0]["flags"] & layouts.ROW_STEPS


def test_a_move_has_every_field_under_its_name() -> None:
    """Keys, numbers and texts differ from each other, so that no two can be swapped unnoticed."""
    breaker = Breaker(3, 0.25, 5_000, 7, 11_000, success_threshold=13)
    tokens = Reservation(Scope.USER, "u", Resource.TOKENS, b"sliding8", 17_000, 19)
    exact = Reservation(Scope.TENANT, "", Resource.TOKENS, b"exactly8", 23_000, 29, log=True)
    slot = Reservation(Scope.TENANT, "", Resource.CONCURRENCY, b"leases_8", 0, 1)
    ended = Final("subject", b"body")
    decision, task = b"d" * 16, b"t" * 16
    move = Move(
        "acme",
        decision,
        Action.RESULT_SETTLED,
        FEATURES,
        task_id=task,
        attempt=31,
        before_state=TaskState.WAITING,
        state=TaskState.SUCCEEDED,
        code=41,
        why=43,
        keep_ms=47,
        due_ms=53,
        charged_ms=59,
        verdict=BreakerVerdict.FAILURE,
        breaker=breaker,
        provider_entry=b"provider",
        taught=Measurements(61, 67),
        usage=b"usage",
        final=ended,
        corrections=(Correction(tokens, "u", -71), Correction(exact, "", 73)),
        leases=(Correction(slot, "", 0),),
        mark=b"the mark",
    )
    batch = MoveBatch()
    batch.add(move, KEYS, 0)
    keys = list(batch.index)
    row = layout_reader.settle_row(batch.rows[0])
    partition = TENANT.partition
    assert {name: keys[k - 1] for name, k in row.items() if name.startswith("k_")} == {
        "k_subject": KEYS.task(task),
        "k_job": KEYS.job(task),
        "k_due": KEYS.due(partition),
        "k_outbox": KEYS.outbox(partition),
        "k_state": TENANT.state,
        "k_audit": TENANT.audit,
        "k_figures": TENANT.figures,
    }
    numbers = ("attempt", "code", "why", "keep_ms", "due_at", "latency_ms", "cost_microusd")
    assert [row[n] for n in numbers] == [31, 41, 43, 47, 53, 61, 67]
    assert row["kind"] == layouts.SETTLE_TASK
    assert row["flags"] == layouts.SETTLE_BREAKER | layouts.SETTLE_FIGURES | layouts.SETTLE_MARK
    assert row["mark"] == b"the mark"
    assert (row["before_state"], row["state"]) == (TaskState.WAITING, TaskState.SUCCEEDED)
    assert (row["verdict"], row["action"]) == (BreakerVerdict.FAILURE.value, Action.RESULT_SETTLED)
    assert (row["nonce"], row["decision"], row["entry"]) == (0, decision, b"provider")
    assert (row["features"], row["usage"], row["final"]) == (FEATURES, b"usage", final(ended))
    settings = ("failures_max", "rate_max", "window_ms", "minimum", "timeout_ms", "successes_needed")
    assert [row[n] for n in settings] == [3, 0.25, 5_000, 7, 11_000, 13]
    read = [
        (keys[c["k"] - 1], c["kind"], c["id"], c["window_ms"], c["charged_ms"], c["delta"]) for c in row["corrections"]
    ]
    assert read == [
        (TENANT.user_state("u"), layouts.KIND_SLIDING, b"sliding8", 17_000, 59, -71),
        (TENANT.log(b"exactly8:"), layouts.KIND_LOG, b"exactly8", 23_000, 59, 73),
    ]
    assert [keys[x["k"] - 1] for x in row["leases"]] == [TENANT.lease(b"leases_8:")]


def test_a_move_without_breaker_and_figures_carries_neither() -> None:
    """What a row does not use costs it nothing; a result that says nothing of the provider needs no settings."""
    batch = MoveBatch()
    batch.add(Move("acme", b"d" * 16, None, FEATURES, verdict=BreakerVerdict.NEITHER, breaker=Breaker()), KEYS, 0)
    row = layout_reader.settle_row(batch.rows[0])
    assert (row["flags"], row["extra_bytes"], row["verdict"]) == (0, 0, BreakerVerdict.NEITHER.value)


def test_every_field_of_every_layout_has_a_meaning() -> None:
    """The table is the documentation of the rows; keys are called k or k_<kind>, and flags have room for 16."""
    for name, layout in LAYOUTS.items():
        assert all(layout.meanings.values()), name
        for field, width in layout.widths.items():
            if field == "k" or field.startswith("k_"):
                assert width == "H", (name, field)
    assert LAYOUTS["decide_row"].widths["flags"] == LAYOUTS["settle_row"].widths["flags"] == "H"


@pytest.mark.parametrize("flags", ["row_flags", "charge_options", "settle_flags"])
def test_flags_are_bits(flags: str) -> None:
    """Each flag is one bit, and no two are the same."""
    bits = list(NAMES[flags].values())
    assert bits == [1 << n for n in range(len(bits))]


@pytest.mark.parametrize("width", ["I8", "c", "c0c0", "b", "B0"])
def test_a_layout_that_cannot_be_packed_is_refused(width: str) -> None:
    """Each width is one that Python and Lua both pack."""
    with pytest.raises(ValueError, match=r"unknown widths: \{'b'"):
        Layout(a=("B", "one"), b=(width, "no such width"))
