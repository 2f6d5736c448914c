"""Moves → the arguments of one `settle` call (see lua/settle.lua)."""

from struct import Struct as Binary

from router.domain.ids import name_in
from router.domain.policy.model import provider_entry
from router.domain.policy.vocabulary import Scope
from router.domain.tasks.result import NO_MEASUREMENTS, BreakerVerdict
from router.domain.tasks.task import Correction, Move
from router.store.keys import Keys, TenantKeys
from router.store.scripts import layouts
from router.store.tasks.records import final

_ROW = layouts.SETTLE_ROW.head
_SIZE = Binary(">I")
_CORRECTION = layouts.CORRECTION.head
_LEASE = layouts.LEASE.head
_BREAKER = layouts.BREAKER.head
_FIGURES = layouts.FIGURES.head
_MARK = layouts.MARK.head
_COUNTED = (BreakerVerdict.SUCCESS, BreakerVerdict.FAILURE)


class MoveBatch:
    """Rows that go in one call. Keys are listed once; rows name them by index, from 1."""

    __slots__ = ("index", "positions", "rows", "size")

    def __init__(self) -> None:
        self.index: dict[bytes, int] = {}
        self.rows: list[bytes] = []
        self.positions: list[int] = []
        self.size = 0

    def _key(self, name: bytes) -> int:
        return self.index.setdefault(name, len(self.index) + 1)

    def add(self, move: Move, keys: Keys, position: int) -> None:
        """Append a move; `position` is the caller's index of it."""
        key = self._key
        tenant = keys.tenant(move.tenant_id)
        verdict = move.verdict.value if move.breaker is not None else 0
        partition = tenant.partition
        job = 0
        final_result = b"" if move.final is None else final(move.final)
        if move.note:
            kind, subject = layouts.SETTLE_NOTE, 0
        elif move.task_id is not None:
            kind, subject, job = layouts.SETTLE_TASK, key(keys.task(move.task_id)), key(keys.job(move.task_id))
        else:
            kind, subject = layouts.SETTLE_ANSWER, key(tenant.idem(name_in(move.decision_id)))
        flags, extra = self._parts(tenant, move)
        self.rows.append(
            b"".join(
                (
                    _ROW.pack(
                        len(self.rows),
                        kind,
                        flags,
                        subject,
                        job,
                        key(keys.due(partition)) if kind == layouts.SETTLE_TASK else 0,
                        key(keys.outbox(partition)) if move.usage else 0,
                        key(tenant.state) if verdict else 0,
                        key(tenant.audit),
                        move.decision_id,
                        move.attempt,
                        move.before_state,
                        move.state,
                        move.code,
                        move.why,
                        move.keep_ms,
                        move.due_ms,
                        verdict,
                        move.provider_entry,
                        0 if move.action is None else move.action,
                        len(move.corrections),
                        len(move.leases),
                        len(extra),
                        len(move.features),
                    ),
                    move.features,
                    _SIZE.pack(len(move.usage)),
                    move.usage,
                    _SIZE.pack(len(final_result)),
                    final_result,
                    *(self._correction(tenant, move, c) for c in move.corrections),
                    *(_LEASE.pack(key(_lease(tenant, c))) for c in move.leases),
                    extra,
                )
            )
        )
        self.positions.append(position)
        self.size += len(self.rows[-1])

    def _parts(self, tenant: TenantKeys, move: Move) -> tuple[int, bytes]:
        """The parts that only some moves have: flags and optional parts, in the order of the flags."""
        flags, parts = layouts.SETTLE_REOPENS if move.reopens else 0, b""
        breaker = move.breaker
        if breaker is not None and move.verdict in _COUNTED:
            flags |= layouts.SETTLE_BREAKER
            parts += _BREAKER.pack(
                breaker.failure_threshold,
                breaker.error_rate_threshold,
                breaker.error_rate_window_ms,
                breaker.minimum_requests,
                breaker.timeout_ms,
                breaker.success_threshold,
            )
        if move.taught != NO_MEASUREMENTS:
            flags |= layouts.SETTLE_FIGURES
            latency, cost = move.taught.latency_ms, move.taught.cost_microusd
            parts += _FIGURES.pack(self._key(tenant.figures), _or_unknown(latency), _or_unknown(cost))
        if move.mark:
            flags |= layouts.SETTLE_MARK
            parts += _MARK.pack(move.mark)
        return flags, parts

    def _correction(self, tenant: TenantKeys, move: Move, c: Correction) -> bytes:
        r = c.reservation
        if r.log:
            log = tenant.log(b"%b:%b" % (r.entry, c.owner.encode()))
            return _CORRECTION.pack(self._key(log), layouts.KIND_LOG, r.entry, r.window_ms, move.charged_ms, c.delta)
        state: bytes
        match Scope(r.scope):
            case Scope.TENANT:
                state = tenant.state
            case Scope.USER:
                state = tenant.user_state(c.owner)
            case Scope.POLICY:
                state = tenant.policy_state(c.owner)
            case Scope.PROVIDER:
                state = tenant.provider_state(c.owner)
        return _CORRECTION.pack(self._key(state), layouts.KIND_SLIDING, r.entry, r.window_ms, move.charged_ms, c.delta)


def _or_unknown(figure: int | None) -> int:
    """A figure as the script reads it: below 0 when the result does not report it."""
    return -1 if figure is None else figure


def _lease(tenant: TenantKeys, c: Correction) -> bytes:
    """The key of a lease: a limit's, by its entry and owner, or a provider's own bound, by its name."""
    r = c.reservation
    if r.entry:
        return tenant.lease(b"%b:%b" % (r.entry, c.owner.encode()))
    return tenant.lease(provider_entry(c.owner))
