"""Rows of the decide and settle scripts: random requests and moves, packed, and read by the table of their fields."""

import random
from collections.abc import Sequence

from msgspec import msgpack

from router.domain.audit.records import DecisionFeatures
from router.domain.decide.outcome import Reservation
from router.domain.decide.plan import plan
from router.domain.decide.request import NO_STEP, DecideRequest, Options, Step
from router.domain.ids import name_in
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Limit, Policy, Sticky, StoredPolicy, provider
from router.domain.policy.vocabulary import Algorithm, Resource, Scope, WhenAllOpen
from router.domain.tasks.result import NO_MEASUREMENTS, BreakerVerdict, Measurements
from router.domain.tasks.task import Action, Correction, Final, Move, TaskFacts, TaskState
from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.rows import RowPacker
from router.store.keys import Keys
from router.store.scripts.layouts import SETTLE_REOPENS
from router.store.tasks import records
from router.store.tasks.settle_rows import MoveBatch
from router.usecases.audit.features import features_of_decision
from tests.fuzz.draws import maybe, name, number, text
from tests.store import layout_reader

KEYS = Keys(schema="t")
_SCOPES = {
    Scope.TENANT: (Resource.REQUESTS, Resource.TOKENS, Resource.COST, Resource.CONCURRENCY),
    Scope.USER: (Resource.REQUESTS, Resource.TOKENS),
    Scope.POLICY: (Resource.REQUESTS, Resource.CONCURRENCY),
    Scope.PROVIDER: (Resource.REQUESTS, Resource.COST),
}


def _limits(r: random.Random) -> list[Limit]:
    made = []
    for n in range(int(r.random() * 6)):
        scope = r.choice(list(_SCOPES))
        resource = r.choice(_SCOPES[scope])
        algorithm = r.choice(list(Algorithm)) if resource is not Resource.CONCURRENCY else Algorithm.SLIDING
        window = 0 if resource is Resource.CONCURRENCY else 1 + number(r, 2**32 - 2)
        made.append(limit(f"l{n}", scope, resource, 1 + number(r, 2**52), window, algorithm=algorithm))
    return made


def _policy(r: random.Random) -> StoredPolicy:
    names = {name(r) for _ in range(1 + int(r.random() * 5))}
    providers = [
        provider(n, weight=1, max_concurrency=number(r, 2**32 - 1), expected_latency_ms=number(r, 2**31)) for n in names
    ]
    breaker = Breaker(half_open_max_calls=1 + number(r, 254), when_all_open=r.choice(list(WhenAllOpen)))
    return StoredPolicy(
        name(r),
        number(r, 2**32 - 1),
        "0" * 16,
        Policy(
            tuple(providers),
            limits=tuple(_limits(r)),
            breaker=breaker if r.random() < 0.5 else None,
            sticky=Sticky(ttl_ms=1 + number(r, 2**32 - 2)) if r.random() < 0.5 else None,
        ),
    )


_POLICIES = [_policy(random.Random(seed)) for seed in range(200)]  # noqa: S311 - it shall be repeatable


def _asked(r: random.Random) -> DecideRequest:
    return DecideRequest(
        name(r), text(r), "default", text(r), r.randbytes(8), payload={},
        context={"session_id": "s" + text(r)} if r.random() < 0.5 else {}, user_id=maybe(r), client_ip=maybe(r),
        options=Options(
            estimate_tokens=number(r, 2**52), deadline_ms=1 + number(r, 1_799_999), explain=r.random() < 0.2,
            meter=r.random() < 0.3,
        ),
        push_assignment=r.random() < 0.5, message_id=maybe(r), idempotency_key=maybe(r),
        step=Step(r.choice((None, "503")), maybe(r)) if r.random() < 0.2 else NO_STEP,
    )  # fmt: skip


def decide_row(r: random.Random) -> tuple[object, object]:
    """A row of the decide script, read by the table of its fields; keys by their index in the call."""
    asked, stored = _asked(r), r.choice(_POLICIES)
    planned, tenant = plan(asked, stored), KEYS.tenant(asked.tenant_id)
    packer, batch = RowPacker(KEYS, r.randbytes, script="0" * 8), Batch()
    decision = packer.decision_id(tenant, planned)
    w = WaitingRow(asked, planned, tenant, b"work" if asked.push_assignment else None, _ignore, decision, 0)
    if not asked.push_assignment and r.random() < 0.2:
        w.preview, w.claim_ms = True, number(r, 2**32 - 1)
    nonce, not_after = number(r, 2**32 - 1), float(number(r))
    packer.add(batch, w, nonce, not_after)
    row, keys = layout_reader.decide_row(batch.rows[0]), [b"", *batch.index]
    charges = [*planned.charges, *(charge for c in planned.candidates for charge in c.charges)]
    found = [*row["charges"], *(charge for c in row["candidates"] for charge in c["charges"])]
    facts = msgpack.decode(row["facts"], type=TaskFacts) if row["facts"] else None
    pushed = asked.push_assignment
    given = (
        (nonce, not_after, decision, planned.deadline_ms, 1, asked.fingerprint[:5] + tenant.owner),
        (tenant.idem(planned.name), tenant.head, tenant.audit, tenant.due if pushed else b""),
        features_of_decision(asked, planned, "0" * 8),
        [(c.limit.entry, float(c.limit.limit), float(c.units)) for c in charges],
        [(c.provider.entry, c.reason, c.provider.max_concurrency) for c in planned.candidates],
        (asked.tenant_id, asked.request_id, asked.user_id) if pushed else None,
        (planned.pin.ttl_ms, tenant.pin(planned.pin.name)) if planned.pin else (0, b""),
        (w.claim_ms, tenant.claim(planned.name)) if w.claim_ms else (0, b""),
    )
    return given, (
        tuple(row[n] for n in ("nonce", "not_after", "decision", "lease_ms", "attempt", "fingerprint")),
        tuple(keys[row[n]] for n in ("k_idem", "k_head", "k_audit", "k_due")),
        msgpack.decode(row["features"], type=DecisionFeatures),
        [(c["id"], c["limit"], c["units"]) for c in found],
        [(c["entry"], c["reason"], c["bound"]) for c in row["candidates"]],
        None if facts is None else (facts.tenant_id, facts.request_id, facts.user_id),
        (row["pin_ms"], keys[row["k_pin"]]),
        (row.get("claim_ms", 0), keys[row.get("k_claim", 0)]),
    )


def _ignore(_outcome: object, _stamp: bytes) -> None:
    """Nobody waits."""


def _corrections(r: random.Random, scopes: Sequence[Scope]) -> tuple[Correction, ...]:
    return tuple(
        Correction(
            Reservation(r.choice(scopes), "", "tokens", r.randbytes(8), number(r, 2**32 - 1), 1, r.random() < 0.5),
            name(r),
            number(r) - 2**52,
        )
        for _ in range(int(r.random() * 4))
    )


def settle_row(r: random.Random) -> tuple[object, object]:
    """A row of the settle script, likewise; two moves of one call, the second is read."""
    breaker = Breaker(1 + number(r, 2**31), r.random(), 1 + number(r, 2**31), number(r, 2**31), number(r, 2**31))
    move = Move(
        name(r), r.randbytes(16), r.choice(list(Action)), r.randbytes(int(r.random() * 300)), number(r, 255),
        task_id=r.randbytes(16) if r.random() < 0.7 else None, attempt=number(r, 255),
        before_state=r.choice(list(TaskState)), state=r.choice(list(TaskState)), keep_ms=number(r, 2**32 - 1),
        due_ms=number(r), verdict=r.choice(list(BreakerVerdict)), breaker=breaker if r.random() < 0.5 else None,
        provider_entry=r.randbytes(8), usage=r.randbytes(int(r.random() * 300)), charged_ms=number(r),
        corrections=_corrections(r, list(Scope)), leases=_corrections(r, [Scope.PROVIDER]), note=r.random() < 0.1,
        reopens=r.random() < 0.1, why=number(r, 65_535), final=Final(text(r), b"{}") if r.random() < 0.3 else None,
        taught=Measurements(number(r), None) if r.random() < 0.3 else NO_MEASUREMENTS,
        mark=r.randbytes(8) if r.random() < 0.3 else b"",
    )  # fmt: skip
    tenant, batch = KEYS.tenant(move.tenant_id), MoveBatch()
    batch.add(Move("other", bytes(16), None, b""), KEYS, 0)
    batch.add(move, KEYS, 1)
    row, keys = layout_reader.settle_row(batch.rows[1]), [b"", *batch.index]
    counted = move.breaker is not None and move.verdict is not BreakerVerdict.NEITHER
    verdict = 0 if move.breaker is None else move.verdict.value
    subject = b"" if move.note else KEYS.task(move.task_id) if move.task_id else tenant.idem(name_in(move.decision_id))
    given = (
        (1, move.decision_id, move.attempt, move.before_state, move.state, move.code, move.why, move.keep_ms),
        (float(move.due_ms), verdict, move.provider_entry, move.action, move.features, move.usage),
        (subject, tenant.audit, KEYS.outbox(tenant.partition) if move.usage else b""),
        b"" if move.final is None else records.final(move.final),
        [
            (c.reservation.entry, c.reservation.window_ms, float(move.charged_ms), float(c.delta))
            for c in move.corrections
        ],
        len(move.leases),
        (breaker.failure_threshold, breaker.error_rate_threshold) if counted else (None, None),
        (float(move.taught.latency_ms or 0), -1.0) if move.taught != NO_MEASUREMENTS else (None, None),
        (move.mark, move.reopens),
    )
    return given, (
        tuple(row[n] for n in ("nonce", "decision", "attempt", "before_state", "state", "code", "why", "keep_ms")),
        tuple(row[n] for n in ("due_at", "verdict", "entry", "action", "features", "usage")),
        tuple(keys[row[n]] for n in ("k_subject", "k_audit", "k_outbox")),
        row["final"],
        [(c["id"], c["window_ms"], c["charged_ms"], c["delta"]) for c in row["corrections"]],
        len(row["leases"]),
        (row.get("failures_max"), row.get("rate_max")),
        (row.get("latency_ms"), row.get("cost_microusd")),
        (row.get("mark", b""), bool(row["flags"] & SETTLE_REOPENS)),
    )
