"""The kinds of keys: pattern, Redis type, life time and content of each. `keys.Keys` builds their names."""

from typing import NamedTuple


class KeyKind(NamedTuple):
    """One row of the reference: pattern, Redis type, life time, content."""

    pattern: str
    type: str
    ttl: str
    holds: str


KEYS = {
    "meta": KeyKind(
        "<schema>:meta", type="hash", ttl="none", holds="partitions, store id; absent means an empty store"
    ),
    "extensions": KeyKind(
        "<schema>:extensions",
        type="hash",
        ttl="24 h after the last call",
        holds="health and breaker of each extension; at most 1,000",
    ),
    "census": KeyKind("<schema>:census", type="string", ttl="30 s", holds="lease of the pod that samples the store"),
    "epochs": KeyKind("<schema>:epochs", type="hash", ttl="none", holds="alert epochs by condition and scope"),
    "unknown": KeyKind(
        "<schema>:unknown",
        type="stream",
        ttl="MAXLEN 10,000 and retention",
        holds="refused requests of unknown tenants",
    ),
    "head": KeyKind(
        "<schema>:{p}:<tenant>:head",
        type="string",
        ttl="none",
        holds="tenant revision, stamp, off switch, drains, forced breakers",
    ),
    "policies": KeyKind(
        "<schema>:{p}:<tenant>:policies",
        type="hash",
        ttl="none",
        holds="policies: policy id → revision, hash, document",
    ),
    "history": KeyKind(
        "<schema>:{p}:<tenant>:h:<policy>",
        type="list",
        ttl="bounded by ROUTER_POLICY_HISTORY; 30 d after a delete",
        holds="history of a policy, newest first: revision, hash, time, author, document",
    ),
    "state": KeyKind(
        "<schema>:{p}:<tenant>:s",
        type="string",
        ttl="its longest window; a day after a breaker's trip",
        holds="tenant limits and all breakers",
    ),
    "state_policy": KeyKind(
        "<schema>:{p}:<tenant>:sp:<policy>", type="string", ttl="its longest window", holds="policy limits"
    ),
    "state_user": KeyKind(
        "<schema>:{p}:<tenant>:su:<hash>", type="string", ttl="its longest window", holds="a user's limits"
    ),
    "state_provider": KeyKind(
        "<schema>:{p}:<tenant>:sv:<provider>", type="string", ttl="its longest window", holds="limits of one provider"
    ),
    "figures": KeyKind(
        "<schema>:{p}:<tenant>:f", type="string", ttl="10 min", holds="learned latency and cost of at most 64 providers"
    ),
    "lease": KeyKind(
        "<schema>:{p}:<tenant>:c:<owner>",
        type="zset",
        ttl="its longest lease",
        holds="concurrency leases: id → expiry in ms",
    ),
    "log": KeyKind(
        "<schema>:{p}:<tenant>:l:<owner>",
        type="zset",
        ttl="the limit's window",
        holds="charges of one limit with `algorithm: log`",
    ),
    "pin": KeyKind(
        "<schema>:{p}:<tenant>:pin:<hash>",
        type="string",
        ttl="the policy's sticky ttl",
        holds="provider that a session is pinned to",
    ),
    "steps": KeyKind(
        "<schema>:{p}:<tenant>:steps:<name>",
        type="hash",
        ttl="24 h after its last step",
        holds="at most 64 steps that the caller of one request has asked for: name of the answer → when it was decided",
    ),
    "audit": KeyKind(
        "<schema>:{p}:<tenant>:audit", type="stream", ttl="MAXLEN and retention", holds="the tenant's audit log"
    ),
    "acts": KeyKind(
        "<schema>:{p}:~:audit",
        type="stream",
        ttl="MAXLEN and retention",
        holds="acts that belong to no tenant: uses of roles, changes of the gate, purges; in the partition of `~`",
    ),
    "audit_marks": KeyKind(
        "<schema>:{p}:<tenant>:am",
        type="hash",
        ttl="retention + 1 day",
        holds="state of the audit log at the last retention run, and how far the export has read",
    ),
    "idem": KeyKind(
        "<schema>{p}<name>",
        type="string",
        ttl="24 h",
        holds="answer to one request; the name is a 10-byte hash of tenant and idempotency key",
    ),
    "claim": KeyKind(
        "<schema>{p}<name>:claim",
        type="string",
        ttl="longest time that its extensions may take",
        holds="claim on a request whose extensions run: decision_id of the claim",
    ),
    "message": KeyKind(
        "<schema>{p}m<hash>",
        type="hash",
        ttl="24 h",
        holds="index of a message id (ROUTER_MESSAGE_INDEX): tenant → idempotency name",
    ),
    "task": KeyKind(
        "<schema>:{p}:~:task:<task>",
        type="string",
        ttl="its work item's; after the end, its tombstone's",
        holds="delivery record of a task",
    ),
    "job": KeyKind(
        "<schema>:{p}:~:job:<task>",
        type="string",
        ttl="last deadline + 5 min; after the end, its tombstone's",
        holds="work item of a dispatched task; after the end its final result, until that is published",
    ),
    "wait": KeyKind(
        "<schema>:{p}:~:wait",
        type="string",
        ttl="1 s",
        holds="nothing; with ROUTER_WAIT_REPLICAS written before WAIT, so that repeats wait for replicas too",
    ),
    "final": KeyKind(
        "<schema>:{p}:~:final:<task>",
        type="string",
        ttl="ROUTER_FINAL_KEEP",
        holds="end of a task whose caller asked for it, for those who repeat the request",
    ),
    "due": KeyKind(
        "<schema>:{p}:~:due",
        type="zset",
        ttl="bounded by tasks in flight",
        holds="due set: task id → when it is due, in ms",
    ),
    "retain": KeyKind(
        "<schema>:{p}:~:retain",
        type="zset",
        ttl="bounded by tenants with a log",
        holds="retention schedule: tenant → when its audit log is due, in ms",
    ),
    "strikes": KeyKind(
        "<schema>:{p}:~:strikes:<message>",
        type="string",
        ttl="1 h after the last",
        holds="count of failed deliveries of a message",
    ),
    "outbox": KeyKind(
        "<schema>:{p}:~:outbox",
        type="hash",
        ttl="bounded by unpublished usage",
        holds="usage outbox: task id → usage event that is not published yet",
    ),
}
