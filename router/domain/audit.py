"""The tenant's audit log: what its records keep, and how people see them (CONTRACTS §9).

Never the payload and never a secret: only what is named here goes in.
"""

from msgspec import Struct

from router.domain.json import JsonObject


class PolicyFrame(Struct, frozen=True, array_like=True):
    """Under which policy a decision was made, and what its candidates and limits are called, in the plan's order."""

    policy_id: str
    policy_revision: int
    policy_hash: str
    providers: tuple[str, ...]
    limits: tuple[str, ...]


class DecisionFeatures(Struct, frozen=True, array_like=True):
    """What the record of a decision keeps of request and policy; packed by the pod, told on by the script."""

    request_id: str
    task_type: str
    user_id: str | None
    ip_address: str | None
    trace_id: str | None
    figures_version: int
    frame: PolicyFrame


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


class AuditEntry(Struct, frozen=True):
    """One record, as people and queries see it. `id` is its place in the log, `ts_us` is Redis time in microseconds."""

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
