"""The tenant's audit log: what its records keep, and how people see them.

Never the payload and never a secret: only what is named here goes in.
"""

from msgspec import Struct

from router.domain.ids import from_text
from router.domain.json import JsonObject
from router.domain.plan import Plan

MAX_NAME_BYTES = 400


class PolicyFrame(Struct, frozen=True, array_like=True):
    """Under which policy a decision was made, and what its candidates and limits are called, in the plan's order.

    A record is to stay below 1 KB: of very many candidates only the first are named, and `more` says how many are not.
    `script` is the version of the script that decided. `provider_limits` are those that every candidate has of its own.
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
    return PolicyFrame(stored.policy_id, stored.revision, stored.hash, tuple(names), limits, script, more, own)


class DecisionFeatures(Struct, frozen=True, array_like=True):
    """What the record of a decision keeps of request and policy; packed by the pod, told on by the script.

    `constrained`: providers that the request's constraints passed over. `times`: how many refusals the record stands
    for, told by the first of them.
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
    """Who does an admin act. `role` None: not over an admin subject, but with access to the store itself."""

    principal: str
    role: str | None = None
    trace_id: str | None = None


ROUTER = Actor("router")
"""The router itself: a pod that reads the seed folder."""


class ActFeatures(Struct, frozen=True, array_like=True):
    """What the record of an admin act keeps: who did it to what. `details` are plain facts, never a secret."""

    principal: str
    role: str | None
    resource_type: str
    resource_id: str | None
    trace_id: str | None
    details: dict[str, str | int | bool] = {}


class UnknownTenant(Struct, frozen=True, array_like=True):
    """A refusal that no tenant's log can hold: what happened `times` times in a second, told by its first request."""

    tenant_id: str
    policy_id: str
    code: str
    times: int
    request_id: str
    ip_address: str | None
    trace_id: str | None


class AuditEntry(Struct, frozen=True):
    """One record, as people and queries see it. `id` is its place in the log, `ts_us` is Redis time in microseconds.

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
    """Which entries of one tenant are wanted; what is None does not matter.

    `since_ms` (inclusive) and `until_ms` (exclusive) are Unix time by the log's own clock, which never goes back.
    `action` is an action or its beginning, all else is compared whole.
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
        """Whether the entry is wanted; its time and tenant were looked at where it was read."""
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
        """Bytes that every wanted record holds: a quick look that spares most records their decoding."""
        texts = (self.user_id, self.trace_id, self.request_id)
        found = [text.encode() for text in texts if text is not None]
        decision = None if self.decision_id is None else from_text(self.decision_id)
        return (*found, decision) if decision is not None else tuple(found)


class AuditRead(Struct, frozen=True):
    """One bounded read of a log: the entries that matched, newest first, how many were read, and the last one's id.

    `last` None: nothing was there to read.
    """

    found: list[AuditEntry]
    read: int
    last: str | None


class AuditStats(Struct, frozen=True):
    """A tenant's log at a glance. `size_bytes` is Redis' own estimate; the newest `sampled` entries were counted.

    `oldest_us` and `newest_us` are None for an empty log.
    """

    entries: int
    oldest_us: int | None
    newest_us: int | None
    size_bytes: int
    sampled: int
    actions: dict[str, int]
