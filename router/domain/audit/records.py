"""The tenant's audit log: the records as they are stored, and the entries that operators read.

A record has two parts. The pod packs the *features*, which it knows before the store decides; the script adds the
outcome. A record holds only the fields named here, never a payload or a secret.
"""

from collections.abc import Callable

from msgspec import Struct

from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.ids import from_text
from router.domain.json import JsonObject

MAX_NAME_BYTES = 400


class PolicyFrame(Struct, frozen=True, array_like=True):
    """The policy of a decision, and the names of its candidates and limits in the order of the plan.

    - `providers`: names of the first candidates, up to `MAX_NAME_BYTES`, so that a record stays below 1 KB.
    - `more`: number of candidates that are not named.
    - `script`: version of the script that decided.
    - `provider_limits`: ids of the limits that are counted for each candidate separately.
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
    """Build the frame of a plan's decision."""
    stored = plan.stored
    names: list[str] = []
    bytes_left = MAX_NAME_BYTES
    for c in plan.candidates:
        bytes_left -= len(c.provider.name) + 1
        if bytes_left < 0:
            break
        names.append(c.provider.name)
    limits = tuple(c.limit.id for c in plan.charges)
    more = len(plan.candidates) - len(names)
    provider_limits = tuple(c.limit.id for c in plan.candidates[0].charges) if plan.candidates else ()
    return PolicyFrame(
        policy_id=stored.policy_id,
        policy_revision=stored.revision,
        policy_hash=stored.hash,
        providers=tuple(names),
        limits=limits,
        script=script,
        more=more,
        provider_limits=provider_limits,
    )


class DecisionFeatures(Struct, frozen=True, array_like=True):
    """The part of a decision's record that comes from the request and the policy. The script stores it as opaque bytes.

    `constrained`: providers that the request's constraints excluded. `times`: the number of refusals that the record
    stands for; its other fields are those of the first refusal.
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


def decision_features(request: DecideRequest, plan: Plan, frame: object) -> tuple[object, ...]:
    """The values of `DecisionFeatures` in the order of its fields, without the last ones that have their defaults.

    `frame`: a `PolicyFrame`, or one that is packed already. Every decision packs this tuple; a struct instead of it
    costs 80 ns more.
    """
    values = (
        request.request_id,
        request.task_type,
        request.user_id,
        request.client_ip,
        request.correlation.trace_id,
        plan.figures_version,
        frame,
    )
    return (*values, tuple(p.provider_id for p in plan.passed_over)) if plan.passed_over else values


class TaskFeatures(Struct, frozen=True, array_like=True):
    """The features in the record of an assignment, a result, or a change of a breaker's state."""

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


class Actor(Struct, frozen=True, kw_only=True):
    """Who performs an admin act. `role` None: with direct access to the store, without an admin subject."""

    principal: str
    role: str | None = None
    trace_id: str | None = None


ROUTER = Actor(principal="router")
"""The router itself, for example a pod that writes policies from the seed folder."""


class ActFeatures(Struct, frozen=True, array_like=True):
    """The features in the record of an admin act. `details` holds plain facts, never a secret."""

    principal: str
    role: str | None
    resource_type: str
    resource_id: str | None
    trace_id: str | None
    details: dict[str, str | int | bool] = {}


class UnknownTenant(Struct, frozen=True, array_like=True):
    """A refusal that names an unknown tenant.

    It stands for `times` refusals within a second; its other fields are those of the first.
    """

    tenant_id: str
    policy_id: str
    code: str
    times: int
    request_id: str
    ip_address: str | None
    trace_id: str | None


class AuditEntry(Struct, frozen=True):
    """One audit entry, as queries and exports return it.

    `id`: its position in the log; `ts_us`: Redis time in microseconds; `outcome`: one of `audit_entries.OUTCOMES`.
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
    """A query for entries of one tenant. A field that is None matches everything.

    `since_ms` (inclusive) and `until_ms` (exclusive) are Unix time by the log's own clock, which never goes back.
    `action` matches a whole action or a prefix of it; the other fields match whole values. `user_hash`: the user's name
    in entries with hashed names (`identity.AuditIdentity`); it matches like `user_id`.
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
    user_hash: str | None = None

    def matches(self, entry: AuditEntry) -> bool:
        """Whether the entry matches. The caller has read only entries of the right tenant and time range."""
        if self.action is not None and not entry.action.startswith(self.action):
            return False
        if self.user_id is not None and entry.user_id not in (self.user_id, self.user_hash or self.user_id):
            return False
        compared = (
            (self.resource_type, entry.resource_type),
            (self.resource_id, entry.resource_id),
            (self.trace_id, entry.trace_id),
            (self.decision_id, entry.details.get("decision_id")),
            (self.request_id, entry.details.get("request_id")),
            (self.outcome, entry.outcome),
        )
        return all(expected is None or expected == actual for expected, actual in compared)

    def may_match(self) -> Callable[[bytes], bool]:
        """Return the quick check of a packed record: False for most records that do not match, so that only the others
        are decoded.
        """
        decision = None if self.decision_id is None else from_text(self.decision_id)
        required = [text.encode() for text in (self.trace_id, self.request_id) if text is not None]
        required += [] if decision is None else [decision]
        users = [text.encode() for text in (self.user_id, self.user_hash) if text is not None]
        if len(users) < 2:
            required += users
            return lambda record: all(text in record for text in required)
        return lambda record: any(u in record for u in users) and all(text in record for text in required)


class AuditRead(Struct, frozen=True):
    """The result of one bounded read of a log.

    - `found`: the matching entries, newest first.
    - `read`: number of entries that were read, with those that do not match.
    - `last`: id of the last entry that was read; None: there was nothing to read.
    """

    found: list[AuditEntry]
    read: int
    last: str | None


class AuditStats(Struct, frozen=True):
    """Size and content of a tenant's log.

    `size_bytes` is an estimate by Redis. `actions` counts the newest `sampled` entries by action. `oldest_us` and
    `newest_us` are None for an empty log.
    """

    entries: int
    oldest_us: int | None
    newest_us: int | None
    size_bytes: int
    sampled: int
    actions: dict[str, int]
