"""The largest of everything, with any figures: every row can be packed, decided, replayed, audited and settled."""

from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from router.domain.audit.records import TaskFeatures
from router.domain.decide.candidates import Candidate
from router.domain.decide.decision import Reason, Refused
from router.domain.decide.figures import Live, Snapshot
from router.domain.decide.outcome import Admitted, NoCandidate, Replay
from router.domain.decide.plan import Plan, plan
from router.domain.decide.request import DecideRequest
from router.domain.defects import Defect, InputWarning, note_of
from router.domain.ids import task_id
from router.domain.json import JsonObject
from router.domain.policy.document import parse
from router.domain.policy.fallbacks import MAX_FALLBACKS
from router.domain.policy.fields import LONGEST_MS, MAX_PROVIDERS
from router.domain.policy.limits import MAX_LIMITS
from router.domain.policy.model import StoredPolicy, provider
from router.domain.policy.vocabulary import Scope
from router.domain.tasks.task import Action, Moved
from router.errors import InvalidInput
from router.store.packing import offer, offer_in
from router.usecases.audit.features import pack_features
from router.usecases.tasks.moves import note_move
from router.wire.fields import MAX_MS, MAX_USD, MICROUSD
from router.wire.worker.job import encode_job
from tests.store.harness import NEVER, Store
from tests.wire.examples import accepted, task_shape

NAME_BYTES = 230
WIDE = "\U0001f600"
SCOPES = ("tenant", "user", "policy", "provider")
latencies, costs = st.integers(0, MAX_MS), st.integers(0, MAX_USD * MICROUSD)


class Figured(NamedTuple):
    """As `harness.Ask`, with learned figures."""

    request: DecideRequest
    stored: StoredPolicy
    snapshot: Snapshot
    job: bytes | None = None
    not_after: float = NEVER

    @property
    def plan(self) -> Plan:
        """The plan with these figures."""
        return plan(self.request, self.stored, snapshot=self.snapshot)


def long_name(n: int) -> str:
    """A provider name of the largest size."""
    return f"{n:0>{NAME_BYTES}}"


def largest_policy(providers: int, fallbacks: int, limits: int, scopes: tuple[str, ...]) -> StoredPolicy:
    """Named as long as can be; every limit is scoped by turns, with the largest numbers."""
    names = [long_name(n) for n in range(providers + fallbacks)]
    document = {
        "providers": [
            {
                "name": name,
                "weight": 100 / providers,
                "expected_latency_ms": LONGEST_MS,
                "expected_cost": 1_000_000,
                "max_concurrency": 1_000_000,
            }
            for name in names[:providers]
        ],
        "fallbacks": [{"to": name, "when": {"status": 500 + n}} for n, name in enumerate(names[providers:])],
        "sticky": {"enabled": True, "session_key": "conversation"},
        "limits": [
            {
                "id": f"{n:0>128}",
                "scope": scopes[n % len(scopes)],
                "resource": ("tokens", "cost", "requests")[n % 3],
                "limit": 1_000_000_000,
                "window": "1h",
            }
            for n in range(limits)
        ],
    }
    compiled = parse(orjson.loads(orjson.dumps(document))).policy
    return StoredPolicy("p" * 255, 2**32 - 1, "0" * 16, compiled)


def largest_request(tenant: str, wide: str, session_chars: int, *, explain: bool) -> DecideRequest:
    """Every id as long as can be, of characters of as many bytes as can be."""
    ids = dict.fromkeys(("run_id", "flow_id", "step_id", "idempotency_key", "message_id"), wide * 256)
    return accepted(
        task_shape(
            tenant_id=tenant,
            request_id=wide * 256,
            trace_id=wide * 128,
            policy_id="p" * 255,
            task={"type": wide * 256, "payload": {"x": "y"}},
            context={
                "user_id": wide * 256,
                "conversation": wide * session_chars,
                "ip_address": "2001:db8::" + "f:" * 5 + "f",
            },
            push_assignment=True,
            assignment_subject="caf.exec." + "s" * 240,
            options={"result_subject": "_INBOX." + "i" * 240, "explain": explain, "meter": True, "priority": "x" * 64},
            **ids,
        )
    )


@pytest.mark.parametrize("name", ["a", "é", "x" * 231, "", "a b"])
def test_a_provider_name_has_1_to_230_bytes(name: str) -> None:
    """In providers, in old forms, and as the target of a rule; the refusal says so."""
    known: JsonObject = {"name": "known", "weight": 100}
    documents: tuple[JsonObject, ...] = (
        {"providers": [{"name": name, "weight": 100}]},
        {"providers": [{"id": name, "weight": 100}]},
        {"weights": {name: 100}},
        {"providers": [known], "fallbacks": [{"to": name}]},
        {"providers": [known], "fallback": name},
        {"providers": [known], "fallback": {"provider": name, "conditions": []}},
    )
    for document in documents:
        if name == "a":
            assert parse(document).policy.providers
            continue
        with pytest.raises(InvalidInput, match="1 to 230"):
            parse(document)


@given(st.integers(1, NAME_BYTES), latencies, costs)
def test_an_offer_holds_any_figures(length: int, latency: int, cost: int) -> None:
    """In the 255 bytes that one byte counts; it is read as it was packed."""
    candidate = Candidate(provider("n" * length, 100), Reason.WEIGHTED, latency, cost)
    packed = offer(candidate)
    assert len(packed) <= 255
    assert offer_in(packed, 0) == (candidate.offer, len(packed))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    providers=st.sampled_from([1, MAX_PROVIDERS]),
    fallbacks=st.sampled_from([0, MAX_FALLBACKS]),
    limits=st.sampled_from([0, MAX_LIMITS]),
    scopes=st.sampled_from([SCOPES, *((s,) for s in SCOPES)]),
    live=st.builds(Live, latencies.map(float), st.floats(0, 32), costs.map(float), st.floats(0, 32)),
    wide=st.sampled_from(["a", WIDE]),
    session_chars=st.sampled_from([1, 256, 100_000]),
    explain=st.booleans(),
    push=st.booleans(),
)
def test_the_largest_of_everything_is_decided(
    store_at_once: Store, live: Live, wide: str, push: bool, **sizes: Any
) -> None:
    """Decided, replayed, audited and stored as a task, whatever the sizes and the learned figures."""
    store, tenant = store_at_once, store_at_once.tenant()
    session_chars, explain = sizes.pop("session_chars"), sizes.pop("explain")
    session_chars = min(session_chars, 10_000) if push else session_chars  # a work item is bounded by itself
    stored = largest_policy(**sizes)
    learned = Snapshot(2**53, dict.fromkeys([p.entry for p in stored.policy.pool], live))
    request = largest_request(tenant, wide, session_chars, explain=explain)
    job = encode_job(request, 5000) if push else None
    assert not isinstance(job, Refused)
    ask: Any = Figured(request, stored, learned, job)
    (made,) = store.decide(ask)
    assert isinstance(made, Admitted), made
    (again,) = store.decide(ask)
    assert isinstance(again, Replay)
    assert again.remembered.sticky_key == (wide * session_chars)[:256]
    record = store.record(task_id(made.decision_id))
    assert (None if record is None else record.facts.request_id) == (wide * 256 if push else None)
    (entry,) = [e for e in store.audit(tenant) if e.action == "decision.made"]
    assert entry.details["request_id"] == wide * 256


@pytest.mark.parametrize("fallbacks", [0, MAX_FALLBACKS])
def test_the_names_of_all_that_constraints_exclude_are_audited(store_at_once: Store, fallbacks: int) -> None:
    """No provider of the policy meets them; targets of rules have no figures, so they do."""
    tenant = store_at_once.tenant()
    stored = largest_policy(MAX_PROVIDERS, fallbacks, MAX_LIMITS, SCOPES)
    request = largest_request(tenant, WIDE, 256, explain=True)
    request = replace(
        request, push_assignment=False, constraints=accepted(task_shape(constraints={"max_cost": 0})).constraints
    )
    none: Any = Figured(request, stored, Snapshot(0, {}))
    (outcome,) = store_at_once.decide(none)
    assert isinstance(outcome, Admitted if fallbacks else NoCandidate)
    (entry,) = store_at_once.audit(tenant)
    assert long_name(MAX_PROVIDERS - 1) in str(entry.details)


def test_the_largest_note_is_audited(store_at_once: Store) -> None:
    """An ack's message, the name of who redrove it, and every warning: cut, and the record is written."""
    tenant = store_at_once.tenant()
    warnings = tuple(InputWarning(Defect.FIELD_DROPPED, WIDE * 200) for _ in range(30))
    wide = WIDE * 256
    features = TaskFeatures(
        *(wide, "p" * 255, 1, long_name(1), None, wide, wide, "error", WIDE * 128, MAX_MS, 10**12, 10**9),
        note=note_of(WIDE * 4096, WIDE * 100_000, warnings=warnings),
    )
    (outcome,) = store_at_once.settle(note_move(tenant, bytes(16), Action.RESULT_LATE, features))
    assert isinstance(outcome, Moved)
    assert len(pack_features(features)) < 2**16
    (entry,) = store_at_once.audit(tenant)
    assert str(entry.details["note"]).startswith(WIDE)


def test_scopes_are_all_scopes() -> None:
    """A new scope is drawn, too."""
    assert set(SCOPES) == {s.value for s in Scope}
