"""The kinds of keys: pattern, Redis type, life time and content of each. `keys.Keys` builds their names."""

from typing import NamedTuple


class KeyKind(NamedTuple):
    """One row of the reference: pattern, Redis type, life time, content."""

    pattern: str
    type: str
    ttl: str
    holds: str


KEYS = {
    "meta": KeyKind("<schema>:meta", "hash", "none", "partitions, store id; absent means an empty store"),
    "extensions": KeyKind(
        "<schema>:extensions", "hash", "24 h after the last call", "health and breaker of each extension; at most 1,000"
    ),
    "census": KeyKind("<schema>:census", "string", "30 s", "lease of the pod that samples the store"),
    "epochs": KeyKind("<schema>:epochs", "hash", "none", "alert epochs by condition and scope"),
    "unknown": KeyKind(
        "<schema>:unknown", "stream", "MAXLEN 10,000 and retention", "refused requests of unknown tenants"
    ),
    "head": KeyKind(
        "<schema>:{p}:<tenant>:head", "string", "none", "tenant revision, stamp, off switch, drains, forced breakers"
    ),
    "policies": KeyKind(
        "<schema>:{p}:<tenant>:policies", "hash", "none", "policies: policy id → revision, hash, document"
    ),
    "history": KeyKind(
        "<schema>:{p}:<tenant>:h:<policy>",
        "list",
        "bounded by ROUTER_POLICY_HISTORY; 30 d after a delete",
        "history of a policy, newest first: revision, hash, time, author, document",
    ),
    "state": KeyKind(
        "<schema>:{p}:<tenant>:s",
        "string",
        "its longest window; a day after a breaker's trip",
        "tenant limits and all breakers",
    ),
    "state_policy": KeyKind("<schema>:{p}:<tenant>:sp:<policy>", "string", "its longest window", "policy limits"),
    "state_user": KeyKind("<schema>:{p}:<tenant>:su:<hash>", "string", "its longest window", "a user's limits"),
    "state_provider": KeyKind(
        "<schema>:{p}:<tenant>:sv:<provider>", "string", "its longest window", "limits of one provider"
    ),
    "figures": KeyKind(
        "<schema>:{p}:<tenant>:f", "string", "10 min", "learned latency and cost of at most 64 providers"
    ),
    "lease": KeyKind(
        "<schema>:{p}:<tenant>:c:<owner>", "zset", "its longest lease", "concurrency leases: id → expiry in ms"
    ),
    "log": KeyKind(
        "<schema>:{p}:<tenant>:l:<owner>", "zset", "the limit's window", "charges of one limit with `algorithm: log`"
    ),
    "pin": KeyKind(
        "<schema>:{p}:<tenant>:pin:<hash>", "string", "the policy's sticky ttl", "provider that a session is pinned to"
    ),
    "steps": KeyKind(
        "<schema>:{p}:<tenant>:steps:<name>",
        "hash",
        "24 h after its last step",
        "at most 64 steps that the caller of one request has asked for: name of the answer → when it was decided",
    ),
    "audit": KeyKind("<schema>:{p}:<tenant>:audit", "stream", "MAXLEN and retention", "the tenant's audit log"),
    "acts": KeyKind(
        "<schema>:{p}:~:audit",
        "stream",
        "MAXLEN and retention",
        "acts that belong to no tenant: uses of roles, changes of the gate, purges; in the partition of `~`",
    ),
    "audit_marks": KeyKind(
        "<schema>:{p}:<tenant>:am",
        "hash",
        "retention + 1 day",
        "state of the audit log at the last retention run, and how far the export has read",
    ),
    "idem": KeyKind(
        "<schema>{p}<name>",
        "string",
        "24 h",
        "answer to one request; the name is a 10-byte hash of tenant and idempotency key",
    ),
    "claim": KeyKind(
        "<schema>{p}<name>:claim",
        "string",
        "longest time that its extensions may take",
        "claim on a request whose extensions run: decision_id of the claim",
    ),
    "message": KeyKind(
        "<schema>{p}m<hash>", "hash", "24 h", "index of a message id (ROUTER_MESSAGE_INDEX): tenant → idempotency name"
    ),
    "task": KeyKind(
        "<schema>:{p}:~:task:<task>",
        "string",
        "its work item's; after the end, its tombstone's",
        "delivery record of a task",
    ),
    "job": KeyKind(
        "<schema>:{p}:~:job:<task>",
        "string",
        "last deadline + 5 min; after the end, its tombstone's",
        "work item of a dispatched task; after the end its final result, until that is published",
    ),
    "final": KeyKind(
        "<schema>:{p}:~:final:<task>",
        "string",
        "ROUTER_FINAL_KEEP",
        "end of a task whose caller asked for it, for those who repeat the request",
    ),
    "due": KeyKind(
        "<schema>:{p}:~:due", "zset", "bounded by tasks in flight", "due set: task id → when it is due, in ms"
    ),
    "retain": KeyKind(
        "<schema>:{p}:~:retain",
        "zset",
        "bounded by tenants with a log",
        "retention schedule: tenant → when its audit log is due, in ms",
    ),
    "strikes": KeyKind(
        "<schema>:{p}:~:strikes:<message>", "string", "1 h after the last", "count of failed deliveries of a message"
    ),
    "outbox": KeyKind(
        "<schema>:{p}:~:outbox",
        "hash",
        "bounded by unpublished usage",
        "usage outbox: task id → usage event that is not published yet",
    ),
}
