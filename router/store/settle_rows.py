"""Moves → the arguments of one `settle` call (see lua/settle.lua)."""

from struct import Struct as Layout

from router.domain.ids import name_in
from router.domain.policy.model import Breaker, Scope, provider_entry
from router.domain.result import NOTHING_TAUGHT
from router.domain.task import Correction, Move
from router.store.keys import Keys, TenantKeys
from router.store.task_records import final

KIND_TASK, KIND_REMEMBERED, KIND_NOTE = 1, 2, 3

_ROW = Layout(">IBHHHHHHH16sBBBBHIdB8sIdIIIIddBH")
_SIZE = Layout(">I")
_COUNTS = Layout(">BB")
_CORRECTION = Layout(">H8sIdd")
_KEY = Layout(">H")
_WINDOW = Layout(">d")


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
        breaker = move.breaker or Breaker()
        verdict = move.verdict.value if move.breaker is not None else 0
        partition = tenant.partition
        job = 0
        told = b"" if move.final is None else final(move.final)
        if move.note:
            kind, subject = KIND_NOTE, 0
        elif move.task_id is not None:
            kind, subject, job = KIND_TASK, key(keys.task(move.task_id)), key(keys.job(move.task_id))
        else:
            kind, subject = KIND_REMEMBERED, key(tenant.idem(name_in(move.decision_id)))
        self.rows.append(
            b"".join(
                (
                    _ROW.pack(
                        len(self.rows),
                        kind,
                        subject,
                        job,
                        key(keys.due(partition)) if kind == KIND_TASK else 0,
                        key(keys.outbox(partition)) if move.usage else 0,
                        key(tenant.state) if verdict else 0,
                        key(tenant.audit),
                        key(tenant.figures) if move.taught != NOTHING_TAUGHT else 0,
                        move.decision_id,
                        move.attempt,
                        move.below,
                        move.state,
                        move.code,
                        move.why,
                        move.keep_ms,
                        move.due_ms,
                        verdict,
                        move.provider_entry,
                        breaker.failure_threshold,
                        breaker.error_rate_threshold,
                        breaker.error_rate_window_ms,
                        breaker.minimum_requests,
                        breaker.timeout_ms,
                        breaker.success_threshold,
                        _told(move.taught.latency_ms),
                        _told(move.taught.cost_microusd),
                        0 if move.action is None else move.action,
                        len(move.features),
                    ),
                    move.features,
                    _SIZE.pack(len(move.usage)),
                    move.usage,
                    _SIZE.pack(len(told)),
                    told,
                    _COUNTS.pack(len(move.corrections), len(move.leases)),
                    *(self._correction(tenant, move, c) for c in move.corrections),
                    *(_KEY.pack(key(_lease(tenant, c))) for c in move.leases),
                )
            )
        )
        self.positions.append(position)
        self.size += len(self.rows[-1])

    def _correction(self, tenant: TenantKeys, move: Move, c: Correction) -> bytes:
        r = c.reservation
        if r.log:
            log = tenant.log(b"%b:%b" % (r.entry, c.owner.encode()))
            return _CORRECTION.pack(self._key(log), _WINDOW.pack(r.window_ms), 0, move.charged_ms, c.delta)
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
        return _CORRECTION.pack(self._key(state), r.entry, r.window_ms, move.charged_ms, c.delta)


def _told(figure: int | None) -> int:
    """Below nothing: the result did not say."""
    return -1 if figure is None else figure


def _lease(tenant: TenantKeys, c: Correction) -> bytes:
    """The key of a lease: a limit's, by its entry and owner, or a provider's own bound, by its name."""
    r = c.reservation
    if r.entry:
        return tenant.lease(b"%b:%b" % (r.entry, c.owner.encode()))
    return tenant.lease(provider_entry(c.owner))
