"""Plans → the arguments of one `decide` call: deduplicated keys and one packed row a request (see lua/decide.lua).

This is the hottest code of a pod. What is the same for many rows is packed once: see `row_parts`.
"""

from collections.abc import Callable
from struct import Struct as Binary
from typing import Literal

from msgspec import msgpack

from router.domain.audit.records import decision_features
from router.domain.decide.candidates import Candidate
from router.domain.decide.outcome import Reservation
from router.domain.decide.plan import Plan, identity_name
from router.domain.decide.request import NO_STEP, DecideRequest
from router.domain.ids import RANDOM_BYTES, decision_id, task_id
from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.row_facts import charged_key, failed_provider, request_facts, reservations_of, task_record
from router.store.decide.row_parts import PolicyParts, candidate_head, limit_part
from router.store.keys import Keys, TenantKeys
from router.store.packing import HASH_BYTES, Extras, sized, tail_extras
from router.store.scripts import layouts
from router.store.scripts.layouts import (
    ROW_CLAIM,
    ROW_EXPLAIN,
    ROW_FAILED,
    ROW_MESSAGE,
    ROW_METER,
    ROW_PREVIEW,
    ROW_RENEW,
    ROW_RESERVED,
    ROW_STEPS,
)

JOB_GRACE_MS = 300_000
MAX_BACKOFF_MS = 30_000

_ROW = layouts.DECIDE_ROW.head
_CHARGE = layouts.CHARGE.joined("kind", "limit")
_CLAIM = layouts.CLAIM.head
_MESSAGE = layouts.MESSAGE.head
_FAILED = layouts.FAILED.head
_STEPS = layouts.STEPS.head
_SIZE = Binary(">H")
_NO_RECORD = _SIZE.pack(0)
_NO_STICKY = b"\0"
_NO_EXTRAS = tail_extras(None)


_RENEW_EVERY_MS = 3_600_000
_CACHE_SIZE = 20_000
MessageIndex = Literal["all", "needed", "off"]
_pack = msgpack.Encoder().encode


class RowPacker:
    """Packs rows. `script` names the version of the script that they are for, in audit records.

    `message_index`: ROUTER_MESSAGE_INDEX, which requests are made findable by their message_id.
    """

    def __init__(
        self,
        keys: Keys,
        random: Callable[[int], bytes],
        *,
        script: str = "",
        message_index: MessageIndex = "all",
    ) -> None:
        self._keys = keys
        self._random = random
        self._pool = b""
        self._pool_at = 0
        self._renew_at: dict[str, float] = {}
        self._parts = PolicyParts(script)
        self._message_index = message_index

    def decision_id(self, tenant: TenantKeys, plan: Plan) -> bytes:
        """A fresh decision id for the plan's idempotency name. Random bytes are drawn from the system in blocks."""
        at = self._pool_at
        if at >= len(self._pool):
            self._pool, at = self._random(RANDOM_BYTES * 1024), 0
        self._pool_at = at + RANDOM_BYTES
        return decision_id(tenant.partition, plan.name, self._pool[at : at + RANDOM_BYTES])

    def add(self, batch: Batch, w: WaitingRow, nonce: int, not_after: float) -> None:
        """Append the row of a waiting caller to a batch."""
        plan, request, keys = w.plan, w.request, w.keys
        w.nonce = nonce
        part = self._parts.of(plan.stored)
        order = self._parts.order(part, plan)
        key = batch.key
        tenant_id = request.tenant_id
        k_head, k_state, k_audit = batch.tenants.get(tenant_id) or batch.tenant(tenant_id, keys)
        reserved: tuple[Reservation, ...] = ()
        if part.reserved is not None and w.attempt == 1 and w.job is None and _has_no_extras(request, plan):
            flags, extras = ROW_RESERVED, part.reserved.packed(plan.charges)
        else:
            if w.attempt > 1:
                reserved = w.reserved
            elif part.reserving or part.by_candidate:
                reserved = reservations_of(plan, part)
            flags, extras = _extras(w, reserved)
        if w.expires >= self._renew_at.get(tenant_id, 0.0) and w.attempt == 1 and not w.preview:
            flags |= ROW_RENEW
            self._renewed(tenant_id, w.expires)
        k_task = k_due = k_job = job_ms = 0
        record = _NO_RECORD
        if w.job is not None:
            task = task_id(w.decision)
            k_task, k_due, k_job = key(keys.task(task)), key(keys.due), key(keys.job(task))
            job_ms = plan.max_attempts * (plan.deadline_ms + MAX_BACKOFF_MS) + JOB_GRACE_MS
            of_task = task_record(request, plan, reserved)
            record = _SIZE.pack(len(of_task)) + of_task
            if w.attempt == 1:
                batch.jobs.append((keys.job(task), w.job))
        extra = b""
        if w.preview or request.options.explain or request.message_id is not None or request.step is not NO_STEP:
            unusual, extra = self._unusual(batch, w)
            flags |= unusual
        pin = plan.pin
        if pin is None:
            k_pin = pin_ms = 0
            sticky = _NO_STICKY
        else:
            k_pin, pin_ms, sticky = key(keys.pins + pin.name), pin.ttl_ms, sized(pin.key.encode())
        blob = _pack(decision_features(request, plan, order.frame))
        if part.charges is not None and w.attempt == 1:
            charges = part.charges.packed(k_state, plan.charges)
        else:
            # A next attempt holds leases only.
            limits = part.limits if w.attempt == 1 else [limit_part(c.limit) for c in plan.charges]
            charges = b"".join(
                [
                    _CHARGE.pack(
                        k_state if limit.of_tenant else key(charged_key(keys, charge)), limit.packed, charge.units
                    )
                    for charge, limit in zip(plan.charges, limits, strict=True)
                ]
            )
        packed = b"".join(
            (
                _ROW.pack(
                    nonce,
                    not_after,
                    flags,
                    key(keys.idem_prefix + plan.name),
                    k_head,
                    k_state if part.probes else 0,
                    k_audit,
                    k_pin,
                    k_task,
                    k_due,
                    k_job,
                    request.fingerprint[:HASH_BYTES] + keys.owner,
                    w.decision,
                    part.all_open,
                    part.probes,
                    plan.deadline_ms,
                    pin_ms,
                    job_ms,
                    w.attempt,
                    len(plan.charges),
                    len(plan.candidates),
                    len(extra),
                    len(blob),
                ),
                blob,
                _SIZE.pack(len(part.tail_head) + len(sticky) + len(extras)),
                part.tail_head,
                sticky,
                extras,
                record,
                charges,
                order.packed or self._bound_candidates(batch, keys, plan.candidates),
                extra,
            )
        )
        batch.rows.append(packed)
        batch.waiting.append(w)
        batch.size += len(packed)

    def _unusual(self, batch: Batch, w: WaitingRow) -> tuple[int, bytes]:
        """The parts that only some rows have: flags and optional parts, in the order of the flags."""
        request = w.request
        flags = ROW_EXPLAIN if w.preview or request.options.explain else 0
        extra = b""
        if w.preview:
            flags |= ROW_PREVIEW
            if w.claim_ms:
                flags |= ROW_CLAIM
                extra = _CLAIM.pack(batch.key(w.keys.claim(w.plan.name)), w.claim_ms)
        if request.message_id is not None and w.attempt == 1 and self._indexes(request):
            flags |= ROW_MESSAGE
            extra += _MESSAGE.pack(batch.key(w.keys.message(request.message_id)))
        if (failed := failed_provider(w)) is not None:
            flags |= ROW_FAILED
            extra += _FAILED.pack(failed)
        if request.step.key and w.attempt == 1 and not w.preview:
            flags |= ROW_STEPS
            extra += _STEPS.pack(batch.key(w.keys.steps(identity_name(request))))
        return flags, extra

    def _indexes(self, request: DecideRequest) -> bool:
        """Whether the decision gets an index entry for its message_id."""
        if self._message_index == "off":
            return False
        needed = request.idempotency_key is not None or request.request_id != request.message_id
        return needed or (request.by_message and self._message_index == "all")

    def _bound_candidates(self, batch: Batch, keys: TenantKeys, candidates: tuple[Candidate, ...]) -> bytes:
        """Candidates with a bound or limits of their own. They name keys, whose indexes belong to the batch."""
        parts: list[bytes] = []
        for c in candidates:
            p = c.provider
            parts.append(candidate_head(c, batch.key(keys.lease(p.entry)) if p.max_concurrency else 0))
            for charge in c.charges:
                limit = limit_part(charge.limit)
                parts.append(_CHARGE.pack(batch.key(charged_key(keys, charge)), limit.packed, charge.units))
        return b"".join(parts)

    def _renewed(self, tenant_id: str, now_ms: float) -> None:
        """The TTL of a tenant's audit log is far longer than this: once an hour is enough, and cheap."""
        if len(self._renew_at) >= _CACHE_SIZE:
            self._renew_at.clear()
        self._renew_at[tenant_id] = now_ms + _RENEW_EVERY_MS


def _has_no_extras(request: DecideRequest, plan: Plan) -> bool:
    """Whether the answer keeps no other extras than its reservations."""
    return not (request.options.meter or plan.requires_cp or plan.unfinished)


def _extras(w: WaitingRow, reserved: tuple[Reservation, ...]) -> tuple[int, bytes]:
    """The extras that the remembered answer keeps, and their flags."""
    request, plan = w.request, w.plan
    flags = ROW_RESERVED if reserved else 0
    facts = None
    if request.options.meter:
        flags |= ROW_METER
        facts = request_facts(request) if w.job is None else None
    if reserved or plan.requires_cp or plan.unfinished or facts is not None:
        return flags, tail_extras(Extras(plan.requires_cp, reserved, plan.unfinished, facts))
    return flags, _NO_EXTRAS
