"""Facts about the request of a decision, read from the audit log by the time of the decision.

A stored answer is small, because there are millions of them: only answers of metered requests name their request. The
audit record of every decision does. The time when an answer was stored follows from the time of its reservations, or
from its TTL. The second is as exact as the pod's estimate of Redis time, which lags by at most one call.
"""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from router.domain.decide.outcome import RequestFacts, StoredAnswer
from router.domain.ids import name_in
from router.domain.tasks.task import Action, Unreadable
from router.store.audit.log import decision_record
from router.store.keys import Keys
from router.store.packing import FormatError
from router.store.servers.nodes import Nodes
from router.store.servers.reads import read_each

MAX_RECORDS = 4_096
"""The maximum number of records that are searched for a decision; a record beyond them is not found.

They cover a few ms of one tenant. Redis makes about 100 decisions in a ms, over all tenants, so the search ends before
this bound unless this pod's estimate of Redis time is wrong by more than 30 ms.
"""
_PAGE = 128
_EARLY_MS, _LATE_MS = 5, 250
_DECISION_MADE = bytes((Action.DECISION_MADE,))


async def request_facts(
    keys: Keys,
    nodes: Nodes,
    answers: Sequence[tuple[str, StoredAnswer]],
    *,
    idempotency_ms: int,
    now_ms: Callable[[str], float],
) -> list[RequestFacts | None]:
    """Read the facts about the requests of these decisions, in order; None: there is no record.

    Takes two round trips, and more only for a tenant with more than 128 records at that time. `idempotency_ms`: the TTL
    of a fresh answer. `now_ms`: Redis time for a tenant.

    :raises StoreError: Redis did not answer.
    """
    began = [now_ms(tenant_id) for tenant_id, _ in answers]
    ttls = await read_each(
        nodes, [("PTTL", keys.tenant(tenant_id).idem(name_in(a.decision_id))) for tenant_id, a in answers]
    )
    searches: list[_Search] = []
    for (tenant_id, answer), ttl, began_ms in zip(answers, ttls, began, strict=True):
        if answer.charged_ms:
            first = last = answer.charged_ms
        else:
            age_ms = idempotency_ms - int(ttl)
            first, last = int(began_ms) - age_ms - _EARLY_MS, int(now_ms(tenant_id)) - age_ms
        log, end = keys.tenant(tenant_id).audit, str(max(last + _LATE_MS, 0))
        searches.append(_Search(answer.decision_id, log, str(max(first, 0)), end))
    for _ in range(MAX_RECORDS // _PAGE):
        going_on = [s for s in searches if not s.is_over]
        if not going_on:
            break
        pages = await read_each(nodes, [("XRANGE", s.log, s.next, s.end, "COUNT", _PAGE) for s in going_on])
        for search, page in zip(going_on, pages, strict=True):
            search.take(page)
    return [s.found for s in searches]


class _Search(Struct):
    """The search for the record of one decision, page by page."""

    decision_id: bytes
    log: bytes
    next: str
    end: str
    is_over: bool = False
    found: RequestFacts | None = None

    def take(self, page: Any) -> None:
        """Search a page of the log."""
        if isinstance(page, Unreadable):
            self.is_over = True
            return
        for _, fields in page:
            raw = fields.get(b"r", b"")
            if raw[1:2] == _DECISION_MADE and self.decision_id in raw:
                self.found, self.is_over = _facts(raw, self.decision_id), True
                return
        self.is_over = len(page) < _PAGE
        if page:
            self.next = f"({page[-1][0].decode()}"


def _facts(raw: bytes, decision_id: bytes) -> RequestFacts | None:
    try:
        decided, features = decision_record(raw)
    except FormatError:
        return None
    if decided != decision_id:
        return None
    return RequestFacts(
        request_id=features.request_id,
        task_type=features.task_type,
        trace_id=features.trace_id,
        user_id=features.user_id,
        client_ip=features.ip_address,
    )
