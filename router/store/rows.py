"""Plans → the arguments of one `decide` call: deduplicated keys and one packed row a request (see lua/decide.lua)."""

from collections import OrderedDict
from collections.abc import Callable
from struct import Struct as Layout

from msgspec import Struct, msgpack

from router.domain.audit import DecisionFeatures
from router.domain.ids import RANDOM_BYTES, decision_id, task_id
from router.domain.outcome import Outcome
from router.domain.plan import Candidate, Charge, Plan
from router.domain.policy import Resource, Scope, WhenAllOpen
from router.domain.request import DecideRequest
from router.domain.task import Reservation, TaskFacts
from router.store.keys import Keys, TenantKeys
from router.store.packing import Extras, offer, tail, task_facts

PUSH, RESERVED, RENEW, METER = 1, 2, 4, 8
_RENEW_EVERY_MS = 3_600_000
SHADOW, CONCURRENCY = 1, 2
JOB_GRACE_MS = 300_000
MAX_BACKOFF_MS = 30_000

_ROW = Layout(">IdBHHHHHHHH8s16sBBIIIH")
_CHARGE = Layout(">H8sIddB")
_CANDIDATE = Layout(">8sBIHBB")
_COUNTS = Layout(">BB")
_SIZE = Layout(">H")
_ALL_OPEN = {WhenAllOpen.FAIL: 0, WhenAllOpen.PROBE_ONE: 1, WhenAllOpen.LAST_RESORT: 2}
_CACHE_SIZE = 50_000
_pack_features = msgpack.Encoder().encode


class Waiting(Struct):
    """A caller that waits for its row until `expires` (monotonic ms). Rows of one `group` may go in one call."""

    request: DecideRequest
    plan: Plan
    keys: TenantKeys
    job: bytes | None
    done: Callable[[Outcome, bytes], None]
    decision: bytes
    expires: float
    group: int = 0
    nonce: int = 0
    again: bool = False


class Batch:
    """Rows that will go in one call. Keys are listed once; rows name them by index, from 1."""

    __slots__ = ("asking", "index", "jobs", "rows", "size", "waiting")

    def __init__(self) -> None:
        self.index: dict[bytes, int] = {}
        self.rows: list[bytes] = []
        self.waiting: list[Waiting] = []
        self.jobs: list[tuple[bytes, bytes]] = []
        self.size = 0
        self.asking = False

    def key(self, name: bytes) -> int:
        """The 1-based index of a key, added when it is new."""
        index = self.index
        n = index.get(name)
        if n is None:
            n = index[name] = len(index) + 1
            self.size += len(name)
        return n


class RowPacker:
    """Packs rows. What is the same for many rows is packed once and remembered, within a bound."""

    def __init__(self, keys: Keys, random: Callable[[int], bytes]) -> None:
        self._keys = keys
        self._random = random
        self._pool = b""
        self._pool_at = 0
        self._renew_at: dict[str, float] = {}
        self._cache: OrderedDict[object, bytes] = OrderedDict()

    def decision_id(self, tenant: TenantKeys, plan: Plan) -> bytes:
        """A fresh decision id for the plan's idempotency name. Random bytes are drawn from the system in blocks."""
        at = self._pool_at
        if at >= len(self._pool):
            self._pool, at = self._random(RANDOM_BYTES * 1024), 0
        self._pool_at = at + RANDOM_BYTES
        return decision_id(tenant.partition, plan.name, self._pool[at : at + RANDOM_BYTES])

    def add(self, batch: Batch, w: Waiting, nonce: int, not_after: float) -> None:
        """Append the row of a waiting caller to a batch."""
        plan, request, keys = w.plan, w.request, w.keys
        w.nonce = nonce
        stored = plan.stored
        key = batch.key
        breaker = stored.policy.breaker
        reserved = _reservations(plan) if stored.policy.reserves else ()
        flags = RESERVED if reserved else 0
        if request.options.meter:
            flags |= METER
        if w.expires >= self._renew_at.get(request.tenant_id, 0.0):
            flags |= RENEW
            self._renewed(request.tenant_id, w.expires)
        k_task = k_due = k_job = job_ms = 0
        record = b""
        if w.job is not None:
            flags |= PUSH
            task = task_id(w.decision)
            k_task, k_due, k_job = key(keys.task(task)), key(keys.due), key(keys.job(task))
            job_ms = plan.max_attempts * (plan.deadline_ms + MAX_BACKOFF_MS) + JOB_GRACE_MS
            record = _record(request, plan, reserved)
            batch.jobs.append((keys.job(task), w.job))
        pin = plan.pin
        blob = self._features(request, plan)
        if reserved or plan.requires_cp or pin is not None:
            extras = Extras(None if pin is None else pin.key, plan.requires_cp, reserved)
            end = tail(stored.policy_id, stored.revision, extras)
        else:
            end = self._plain_tail(stored.policy_id, stored.revision)
        row = [
            _ROW.pack(
                nonce,
                not_after,
                flags,
                key(keys.idem_prefix + plan.name),
                key(keys.head),
                key(keys.state) if breaker is not None else 0,
                key(keys.audit),
                0 if pin is None else key(keys.pin(pin.name)),
                k_task,
                k_due,
                k_job,
                request.fingerprint,
                w.decision,
                0 if breaker is None else _ALL_OPEN[breaker.when_all_open],
                0 if breaker is None else breaker.half_open_max_calls,
                plan.deadline_ms,
                0 if pin is None else pin.ttl_ms,
                job_ms,
                len(blob),
            ),
            blob,
            _SIZE.pack(len(end)),
            end,
            _SIZE.pack(len(record)),
            record,
            _COUNTS.pack(len(plan.charges), len(plan.candidates)),
        ]
        row += [self._charge(batch, keys, charge) for charge in plan.charges]
        row += [self._candidate(batch, keys, candidate) for candidate in plan.candidates]
        packed = b"".join(row)
        batch.rows.append(packed)
        batch.waiting.append(w)
        batch.size += len(packed)

    def _charge(self, batch: Batch, keys: TenantKeys, charge: Charge) -> bytes:
        limit = charge.limit
        flags = SHADOW if limit.shadow else 0
        if limit.resource is Resource.CONCURRENCY:
            owner = b"%b:%b" % (limit.entry, charge.owner.encode())
            return _CHARGE.pack(
                batch.key(keys.lease(owner)), limit.entry, 0, limit.limit, charge.units, flags | CONCURRENCY
            )
        match limit.scope:
            case Scope.TENANT:
                state = keys.state
            case Scope.USER:
                state = keys.user_state(charge.owner)
            case Scope.POLICY:
                state = keys.policy_state(charge.owner)
            case Scope.PROVIDER:
                state = keys.provider_state(charge.owner)
        return _CHARGE.pack(batch.key(state), limit.entry, limit.window_ms, limit.limit, charge.units, flags)

    def _candidate(self, batch: Batch, keys: TenantKeys, c: Candidate) -> bytes:
        p = c.provider
        if not p.max_concurrency and not c.charges:
            known = (p.name, c.reason, c.expected_latency_ms, c.expected_cost_microusd)
            packed = self._cache.get(known)
            if packed is None:
                packed = self._remember(known, _head_of(c, 0, 0))
            return packed
        lease = batch.key(keys.lease(p.entry)) if p.max_concurrency else 0
        return b"".join(
            (_head_of(c, p.max_concurrency, lease), *(self._charge(batch, keys, charge) for charge in c.charges))
        )

    def _renewed(self, tenant_id: str, now_ms: float) -> None:
        """The TTL of a tenant's audit log is far longer than this: once an hour is enough, and cheap."""
        if len(self._renew_at) >= _CACHE_SIZE:
            self._renew_at.clear()
        self._renew_at[tenant_id] = now_ms + _RENEW_EVERY_MS

    def _plain_tail(self, policy_id: str, revision: int) -> bytes:
        known = (policy_id, revision)
        return self._cache.get(known) or self._remember(known, tail(policy_id, revision, None))

    def _remember(self, known: object, packed: bytes) -> bytes:
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.popitem(last=False)
        self._cache[known] = packed
        return packed

    @staticmethod
    def _features(request: DecideRequest, plan: Plan) -> bytes:
        stored = plan.stored
        return _pack_features(
            DecisionFeatures(
                request.request_id,
                stored.policy_id,
                stored.revision,
                stored.hash,
                request.task_type,
                request.user_id,
                request.client_ip,
                request.correlation.trace_id,
                tuple([c.provider.name for c in plan.candidates]),
                tuple([c.limit.id for c in plan.charges]),
                plan.figures_version,
            )
        )


def _head_of(c: Candidate, bound: int, lease: int) -> bytes:
    blob = offer(c)
    return _CANDIDATE.pack(c.provider.entry, c.reason, bound, lease, len(c.charges), len(blob)) + blob


def _reservations(plan: Plan) -> tuple[Reservation, ...]:
    """What a result will settle: estimates of tokens and cost, and leases. Requests are spent for good."""
    found = [
        Reservation(c.limit.scope, c.owner, c.limit.resource, c.limit.entry, c.limit.window_ms, c.units)
        for c in plan.charges
        if c.limit.resource is not Resource.REQUESTS
    ]
    for c in plan.candidates[:1]:
        # The chosen provider is known to the script only; its name is in the answer, its own cost stands for −1.
        found += [
            Reservation(
                Scope.PROVIDER,
                "",
                x.limit.resource,
                x.limit.entry,
                x.limit.window_ms,
                -1 if x.limit.resource is Resource.COST and x.units == c.expected_cost_microusd else x.units,
            )
            for x in c.charges
            if x.limit.resource is not Resource.REQUESTS
        ]
    if any(c.provider.max_concurrency for c in plan.candidates):
        found.append(Reservation(Scope.PROVIDER, "", Resource.CONCURRENCY, b"", 0, 1))
    return tuple(found)


def _record(request: DecideRequest, plan: Plan, reserved: tuple[Reservation, ...]) -> bytes:
    c = request.correlation
    return task_facts(
        TaskFacts(
            request.tenant_id,
            plan.stored.policy_id,
            plan.stored.revision,
            request.request_id,
            request.task_type,
            request.assignment_subject,
            plan.max_attempts,
            plan.deadline_ms,
            request.options.result_subject,
            c.trace_id,
            c.run_id,
            c.flow_id,
            c.step_id,
            request.idempotency_key,
            request.user_id,
            reserved,
        )
    )
