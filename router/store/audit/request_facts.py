"""What the audit log says of the request of a decision, found by the moment of the decision.

An answer holds few bytes, because there are millions of them: only those of metered requests name their request. The
audit record of every decision does. The answer tells when it was stored: by the moment of its reservations, or by its
time to live. The second is as exact as the pod's idea of Redis time, which lags by at most one call.
"""

from collections.abc import Callable, Sequence
from typing import Any

from router.domain.ids import name_in
from router.domain.outcome import RequestFacts, StoredAnswer
from router.domain.task import Action, Unreadable
from router.store.audit.log import made_record
from router.store.decide.link import Command
from router.store.keys import Keys
from router.store.packing import FormatError
from router.store.servers.nodes import Nodes
from router.store.servers.reads import read_each

MAX_RECORDS = 128
"""Records of one moment that are looked through; a decision beyond them is not found."""
_EARLY_MS, _LATE_MS = 5, 250
_MADE = bytes((Action.DECISION_MADE,))


async def request_facts(
    keys: Keys,
    nodes: Nodes,
    answers: Sequence[tuple[str, StoredAnswer]],
    *,
    idempotency_ms: int,
    now_ms: Callable[[str], float],
) -> list[RequestFacts | None]:
    """Read what the audit logs say of the requests of these decisions, in order; None: there is no record.

    Two round trips. `idempotency_ms`: the time to live of a fresh answer. `now_ms`: Redis time for a tenant.

    :raises StoreError: Redis did not answer.
    """
    began = [now_ms(tenant_id) for tenant_id, _ in answers]
    ttls = await read_each(
        nodes, [("PTTL", keys.tenant(tenant_id).idem(name_in(a.decision_id))) for tenant_id, a in answers]
    )
    commands: list[Command] = []
    for (tenant_id, answer), ttl, began_ms in zip(answers, ttls, began, strict=True):
        if answer.charged_ms:
            first = last = answer.charged_ms
        else:
            age_ms = idempotency_ms - int(ttl)
            first, last = int(began_ms) - age_ms - _EARLY_MS, int(now_ms(tenant_id)) - age_ms
        log = keys.tenant(tenant_id).audit
        commands.append(("XRANGE", log, max(first, 0), max(last + _LATE_MS, 0), "COUNT", MAX_RECORDS))
    logs = await read_each(nodes, commands)
    return [_found(log, a.decision_id) for log, (_, a) in zip(logs, answers, strict=True)]


def _found(log: Any, decision_id: bytes) -> RequestFacts | None:
    if isinstance(log, Unreadable):
        return None
    for _, fields in log:
        raw = fields.get(b"r", b"")
        if raw[1:2] == _MADE and decision_id in raw:
            return _facts(raw, decision_id)
    return None


def _facts(raw: bytes, decision_id: bytes) -> RequestFacts | None:
    try:
        made, features = made_record(raw)
    except FormatError:
        return None
    if made != decision_id:
        return None
    return RequestFacts(
        request_id=features.request_id,
        task_type=features.task_type,
        trace_id=features.trace_id,
        user_id=features.user_id,
        client_ip=features.ip_address,
    )
