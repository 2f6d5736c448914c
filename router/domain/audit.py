"""The tenant's audit log: the content of its records, and the entries that people read.

A record holds only the fields named here, never a payload or a secret.
"""

from msgspec import Struct

from router.domain.ids import from_text
from router.domain.json import JsonObject
from router.domain.plan import Plan

MAX_NAME_BYTES = 400


class PolicyFrame(Struct, frozen=True, array_like=True):
    """The policy of a decision, and the names of its candidates and limits in the plan's order.

    A record stays below 1 KB: of very many candidates only the first are named; `more` counts the others. `script` is
    the version of the script that decided. `provider_limits` are the limits that every candidate has of its own.
    """

    policy_id: str
    policy_revision: int
    policy_hash: str
    providers: tuple[str, ...]
    limits: tuple[str, ...]
    script: str = ""
    more: int = 0
    provider_limits: tuple[str, ...] = ()


def policy_frame(plan: Plan, script: str = "") -> PolicyFrame:
    """The frame of a plan's decision."""
    stored = plan.stored
    names: list[str] = []
    left = MAX_NAME_BYTES
    for c in plan.candidates:
        left -= len(c.provider.name) + 1
        if left < 0:
            break
        names.append(c.provider.name)
    limits = tuple(c.limit.id for c in plan.charges)
    more = len(plan.candidates) - len(names)
    own = tuple(c.limit.id for c in plan.candidates[0].charges) if plan.candidates else ()
    return PolicyFrame(
        policy_id=stored.policy_id,
        policy_revision=stored.revision,
        policy_hash=stored.hash,
        providers=tuple(names),
        limits=limits,
        script=script,
        more=more,
        provider_limits=own,
    )


class DecisionFeatures(Struct, frozen=True, array_like=True):
    """What the record of a decision keeps of request and policy. The pod packs it; the script stores it unread.

    `constrained`: providers that the request's constraints passed over. `times`: the number of refusals that the record
    stands for; the fields are those of the first.
    """

    request_id: str
    task_type: str
    user_id: str | None
    ip_address: str | None
    trace_id: str | None
    figures_version: int
    frame: PolicyFrame
    constrained: tuple[str, ...] = ()
    times: int = 1


class TaskFeatures(Struct, frozen=True, array_like=True):
    """What the record of an assignment, a result or a breaker's turn keeps."""

    request_id: str
    policy_id: str
    policy_revision: int
    provider_id: str
    assignment_id: str | None
    user_id: str | None
    trace_id: str | None
    status: str | None = None
    error_code: str | None = None
    latency_ms: int | None = None
    cost_microusd: int | None = None
    tokens: int | None = None
    note: str | None = None
    ip_address: str | None = None


class Actor(Struct, frozen=True):
    """Who does an admin act. `role` None: by direct access to the store instead of an admin subject."""

    principal: str
    role: str | None = None
    trace_id: str | None = None


ROUTER = Actor("router")
"""The router itself, for example a pod that reads the seed folder."""


class ActFeatures(Struct, frozen=True, array_like=True):
    """What the record of an admin act keeps. `details` are plain facts, never a secret."""

    principal: str
    role: str | None
    resource_type: str
    resource_id: str | None
    trace_id: str | None
    details: dict[str, str | int | bool] = {}


class UnknownTenant(Struct, frozen=True, array_like=True):
    """A refusal whose tenant is unknown. It stands for `times` refusals within a second; the fields are those of the
    first.
    """

    tenant_id: str
    policy_id: str
    code: str
    times: int
    request_id: str
    ip_address: str | None
    trace_id: str | None


class AuditEntry(Struct, frozen=True):
    """One audit entry, as people and queries see it. `id` is its position in the log, `ts_us` Redis time in
    microseconds.

    `outcome`: one of `audit_entries.OUTCOMES`.
    """

    id: str
    ts_us: int
    tenant_id: str
    action: str
    resource_type: str
    resource_id: str | None
    user_id: str | None
    ip_address: str | None
    trace_id: str | None
    details: JsonObject
    outcome: str | None = None


class AuditQuery(Struct, frozen=True):
    """A query for entries of one tenant; None matches everything.

    `since_ms` (inclusive) and `until_ms` (exclusive) are Unix time by the log's own clock, which never steps back.
    `action` matches an action or its beginning; other fields match whole.
    """

    tenant_id: str
    since_ms: int | None = None
    until_ms: int | None = None
    action: str | None = None
    user_id: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    trace_id: str | None = None
    decision_id: str | None = None
    request_id: str | None = None
    outcome: str | None = None

    def matches(self, entry: AuditEntry) -> bool:
        """Whether the entry matches. Its time and tenant were checked where it was read."""
        if self.action is not None and not entry.action.startswith(self.action):
            return False
        compared = (
            (self.user_id, entry.user_id),
            (self.resource_type, entry.resource_type),
            (self.resource_id, entry.resource_id),
            (self.trace_id, entry.trace_id),
            (self.decision_id, entry.details.get("decision_id")),
            (self.request_id, entry.details.get("request_id")),
            (self.outcome, entry.outcome),
        )
        return all(wanted is None or wanted == found for wanted, found in compared)

    def traces(self) -> tuple[bytes, ...]:
        """Bytes that every matching record contains: a quick check that spares most records the decoding."""
        texts = (self.user_id, self.trace_id, self.request_id)
        found = [text.encode() for text in texts if text is not None]
        decision = None if self.decision_id is None else from_text(self.decision_id)
        return (*found, decision) if decision is not None else tuple(found)


class AuditRead(Struct, frozen=True):
    """One bounded read of a log: the matching entries, newest first; how many were read; the id of the last one read.

    `last` None: there was nothing to read.
    """

    found: list[AuditEntry]
    read: int
    last: str | None


class AuditStats(Struct, frozen=True):
    """Size and content of a tenant's log. `size_bytes` is Redis' estimate; `actions` counts the newest `sampled`
    entries.

    `oldest_us` and `newest_us` are None for an empty log.
    """

    entries: int
    oldest_us: int | None
    newest_us: int | None
    size_bytes: int
    sampled: int
    actions: dict[str, int]
