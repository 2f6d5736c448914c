"""`ports.AuditLog` on Redis streams: reads a tenant's log; the scripts write it.

record  field r: B 1, B action, d Redis ms, d microseconds of it, 16s decision_id, B reason (made) or code, B candidate
        (made), limit or attempt, d pin state (made) or wait in ms, B length, verdicts, msgpack of the features
half opened          B 1, B action, d Redis ms, d microseconds of it, 8s provider entry, msgpack of the features
"""

from struct import Struct as Layout

import msgspec
from msgspec import msgpack

from router.domain.audit import AuditEntry, DecisionFeatures, TaskFeatures
from router.domain.decision import PinState, Reason, Verdict
from router.domain.ids import to_text
from router.domain.json import JsonObject, JsonValue
from router.domain.policy import provider_entry
from router.domain.task import Action
from router.store.keys import Keys
from router.store.nodes import Nodes
from router.store.packing import FORMAT, FormatError

MOST_PER_PAGE = 1000

_HEAD = Layout(">BBdd16sBBdB")
_HALF_OPENED = Layout(">BBdd8s")
_REFUSALS = {2: "conflict", 3: "limited", 4: "no_candidate", 6: "tenant_off"}
_decision = msgpack.Decoder(DecisionFeatures).decode
_task = msgpack.Decoder(TaskFeatures).decode
_DECISIONS = frozenset(
    (Action.DECISION_MADE, Action.DECISION_REFUSED, Action.DECISION_CONFLICT, Action.DECISION_DEGRADED)
)


class RedisAudit:
    """Reads; see the port for the promises."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes

    async def newest(self, tenant_id: str, *, before: str | None = None, most: int = 100) -> list[AuditEntry]:
        """See `ports.AuditLog.newest`."""
        end = "+" if before is None else f"({before}"
        rows = await self._nodes.call(
            "XREVRANGE", self._keys.tenant(tenant_id).audit, end, "-", "COUNT", min(most, MOST_PER_PAGE)
        )
        return [entry(tenant_id, row) for row in rows]

    async def after(self, tenant_id: str, last: str, *, most: int = 100) -> list[AuditEntry]:
        """See `ports.AuditLog.after`."""
        rows = await self._nodes.call(
            "XRANGE", self._keys.tenant(tenant_id).audit, f"({last}", "+", "COUNT", min(most, MOST_PER_PAGE)
        )
        return [entry(tenant_id, row) for row in rows]


def entry(tenant_id: str, row: tuple[bytes, dict[bytes, bytes]]) -> AuditEntry:
    """One stream entry.

    :raises FormatError: not a record of a format that this version reads.
    """
    raw_id, fields = row
    raw = fields[b"r"]
    if raw[0] != FORMAT:
        raise FormatError(f"audit record of format {raw[0]}")
    action = Action(raw[1])
    try:
        if action is Action.BREAKER_HALF_OPENED:
            return _half_opened(raw_id.decode(), tenant_id, action, raw)
        if action in _DECISIONS:
            return _decision_entry(raw_id.decode(), tenant_id, action, raw)
        return _task_entry(raw_id.decode(), tenant_id, action, raw)
    except msgspec.ValidationError as fault:
        raise FormatError(f"audit record {raw_id.decode()}: {fault}") from fault


def _micros(ms: float, us: float) -> int:
    return int(ms) * 1000 + int(us)


def _decision_entry(entry_id: str, tenant_id: str, action: Action, raw: bytes) -> AuditEntry:
    _, _, ms, us, decision, code, index, wait, count = _HEAD.unpack_from(raw)
    # A made decision has reason, candidate and pin state where a refusal has code, limit and wait.
    pin = int(wait)
    at = _HEAD.size
    verdicts = raw[at : at + count]
    f = _decision(raw[at + count :])
    details: JsonObject = {
        "request_id": f.request_id,
        "policy_id": f.frame.policy_id,
        "policy_revision": f.frame.policy_revision,
        "policy_hash": f.frame.policy_hash,
        "task_type": f.task_type,
    }
    if action in (Action.DECISION_MADE, Action.DECISION_DEGRADED):
        details |= {
            "decision_id": to_text(decision),
            "provider_id": f.frame.providers[index],
            "reason": Reason(code).label,
        }
        if action is Action.DECISION_MADE:
            details["pin"] = PinState(pin).name.lower()
    else:
        details["refusal"] = _REFUSALS.get(code, str(code))
        if code == 3:
            details["limit_id"] = f.frame.limits[index]
        if wait >= 0:
            details["retry_after_ms"] = int(wait)
    if verdicts:
        walked: list[JsonValue] = [
            {"provider_id": name, "verdict": Verdict(v).label}
            for name, v in zip(f.frame.providers, verdicts, strict=False)
        ]
        details["candidates"] = walked
    if f.figures_version:
        details["figures_version"] = f.figures_version
    return AuditEntry(
        entry_id,
        _micros(ms, us),
        tenant_id,
        action.label,
        "request",
        f.request_id,
        f.user_id,
        f.ip_address,
        f.trace_id,
        details,
    )


def _task_entry(entry_id: str, tenant_id: str, action: Action, raw: bytes) -> AuditEntry:
    _, _, ms, us, decision, _, attempt, _, count = _HEAD.unpack_from(raw)
    f = _task(raw[_HEAD.size + count :])
    details: JsonObject = {
        "request_id": f.request_id,
        "decision_id": to_text(decision),
        "policy_id": f.policy_id,
        "policy_revision": f.policy_revision,
        "provider_id": f.provider_id,
    }
    if attempt:
        details["attempt"] = attempt
    optional: tuple[tuple[str, JsonValue], ...] = (
        ("status", f.status),
        ("error_code", f.error_code),
        ("latency_ms", f.latency_ms),
        ("cost_microusd", f.cost_microusd),
        ("tokens", f.tokens),
        ("note", f.note),
    )
    details |= {name: value for name, value in optional if value is not None}
    breaker = action.label.startswith("breaker.")
    return AuditEntry(
        entry_id,
        _micros(ms, us),
        tenant_id,
        action.label,
        "provider" if breaker else "assignment",
        f.provider_id if breaker else f.assignment_id,
        f.user_id,
        None,
        f.trace_id,
        details,
    )


def _half_opened(entry_id: str, tenant_id: str, action: Action, raw: bytes) -> AuditEntry:
    _, _, ms, us, provider = _HALF_OPENED.unpack_from(raw)
    f = _decision(raw[_HALF_OPENED.size :])
    names = {provider_entry(name): name for name in f.frame.providers}
    details: JsonObject = {
        "request_id": f.request_id,
        "policy_id": f.frame.policy_id,
        "policy_revision": f.frame.policy_revision,
    }
    return AuditEntry(
        entry_id,
        _micros(ms, us),
        tenant_id,
        action.label,
        "provider",
        names.get(provider),
        f.user_id,
        None,
        f.trace_id,
        details,
    )
