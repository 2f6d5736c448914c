"""Every key that the router writes: one function per kind, and one table that describes the kinds.

A tenant belongs to one partition, and the partition is the hash tag of its keys. So one call can serve many tenants of
a partition, although a Cluster allows a call only one slot.

A tenant's name cannot contain `~`. Keys with `~` in its place belong to the whole partition. The exception is
`~:audit`, the log of acts that belong to no tenant.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from msgspec import Struct

from router.domain.ids import owner_mark, partition_of
from router.store.servers.tags import partition_tags

NO_TENANT = "~"
"""Stands in place of a tenant's name.

`router audit query --tenant '~'` reads the log of acts that belong to no tenant.
"""
_USER_BYTES = 12
_MESSAGE_BYTES = 10
_TENANTS_REMEMBERED = 20_000
_USERS_REMEMBERED = 50_000


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


@lru_cache(maxsize=_USERS_REMEMBERED)
def _user_name(user_id: str) -> bytes:
    return blake2b(user_id.encode(), digest_size=_USER_BYTES).digest()


def _message_name(message_id: str) -> bytes:
    return blake2b(message_id.encode(), digest_size=_MESSAGE_BYTES).digest()


class TenantKeys(Struct, frozen=True):
    """The keys of one tenant. Keys that contain another name or id are built by the methods.

    `owner` is the mark of the tenant in stored answers.
    """

    partition: int
    prefix: bytes
    idem_prefix: bytes
    head: bytes
    policies: bytes
    state: bytes
    audit: bytes
    audit_marks: bytes
    due: bytes
    shared: bytes
    pins: bytes
    figures: bytes
    owner: bytes

    def history(self, policy_id: str) -> bytes:
        """The history of a policy."""
        return b"%bh:%b" % (self.prefix, policy_id.encode())

    def policy_state(self, policy_id: str) -> bytes:
        """Policy-scope limits."""
        return b"%bsp:%b" % (self.prefix, policy_id.encode())

    def user_state(self, user_id: str) -> bytes:
        """User-scope limits. A user id has any length and any characters, so it is hashed."""
        return b"%bsu:%b" % (self.prefix, _user_name(user_id))

    def provider_state(self, provider: str) -> bytes:
        """Provider-scope limits."""
        return b"%bsv:%b" % (self.prefix, provider.encode())

    def lease(self, owner: bytes) -> bytes:
        """Concurrency leases of one limit, or of one provider."""
        return b"%bc:%b" % (self.prefix, owner)

    def log(self, owner: bytes) -> bytes:
        """Charges of one limit with `algorithm: log`."""
        return b"%bl:%b" % (self.prefix, owner)

    def pin(self, name: bytes) -> bytes:
        """The provider that a session is pinned to."""
        return self.pins + name

    def idem(self, name: bytes) -> bytes:
        """The stored answer of a request."""
        return self.idem_prefix + name

    def claim(self, name: bytes) -> bytes:
        """The claim on a request."""
        return b"%b%b:claim" % (self.idem_prefix, name)

    def message(self, message_id: str) -> bytes:
        """The index of a message id."""
        return b"%bm%b" % (self.idem_prefix, _message_name(message_id))

    def steps(self, identity: bytes) -> bytes:
        """The steps of a request, by its idempotency name without a step."""
        return b"%bsteps:%b" % (self.prefix, identity)

    def task(self, task_id: bytes) -> bytes:
        """The delivery record."""
        return b"%btask:%b" % (self.shared, task_id)

    def job(self, task_id: bytes) -> bytes:
        """The work item."""
        return b"%bjob:%b" % (self.shared, task_id)

    def final(self, task_id: bytes) -> bytes:
        """The final result of a task that is kept for repeats."""
        return b"%bfinal:%b" % (self.shared, task_id)


class Keys:
    """Key names for one schema and number of partitions."""

    def __init__(self, schema: str = "r1", partitions: int = 64) -> None:
        self.schema = schema
        self.partitions = partitions
        self.meta = f"{schema}:meta".encode()
        self.epochs = f"{schema}:epochs".encode()
        self.extensions = f"{schema}:extensions".encode()
        self.unknown = f"{schema}:unknown".encode()
        self.census = f"{schema}:census".encode()
        self._tags = partition_tags(partitions)
        self.tenant = lru_cache(maxsize=_TENANTS_REMEMBERED)(self._tenant)
        self.acts = self.tenant(NO_TENANT).audit

    def _tenant(self, tenant_id: str) -> TenantKeys:
        """The keys of a tenant (cached, bounded)."""
        p = partition_of(tenant_id, self.partitions)
        prefix = self._prefix(p) + tenant_id.encode() + b":"
        shared = self._prefix(p) + b"~:"
        return TenantKeys(
            partition=p,
            prefix=prefix,
            idem_prefix=self.idem_prefix(p),
            head=prefix + b"head",
            policies=prefix + b"policies",
            state=prefix + b"s",
            audit=prefix + b"audit",
            audit_marks=prefix + b"am",
            due=self.due(p),
            shared=shared,
            pins=prefix + b"pin:",
            figures=prefix + b"f",
            owner=owner_mark(tenant_id),
        )

    def tag(self, partition: int) -> bytes:
        """The hash tag of a partition."""
        return self._tags[partition]

    def _prefix(self, partition: int) -> bytes:
        return b"%b:{%b}:" % (self.schema.encode(), self._tags[partition])

    def idem_prefix(self, partition: int) -> bytes:
        """The prefix of the 10-byte name; short, because there are millions of these keys."""
        return b"%b{%b}" % (self.schema.encode(), self._tags[partition])

    def message(self, partition: int, message_id: str) -> bytes:
        """The index of a message id, for tenants of this partition."""
        return b"%bm%b" % (self.idem_prefix(partition), _message_name(message_id))

    def due(self, partition: int) -> bytes:
        """The due set: task id → when it is due."""
        return self._prefix(partition) + b"~:due"

    def retain(self, partition: int) -> bytes:
        """The retention schedule: tenant → when its audit log is due."""
        return self._prefix(partition) + b"~:retain"

    def outbox(self, partition: int) -> bytes:
        """The usage outbox: usage events that are settled and not published yet."""
        return self._prefix(partition) + b"~:outbox"

    def failures(self, message: bytes) -> bytes:
        """The count of failed deliveries of a message, by its hash, which also chooses the partition."""
        return self._prefix(int.from_bytes(message[:2]) % self.partitions) + b"~:strikes:" + message

    def task(self, task_id: bytes) -> bytes:
        """The delivery record of a task, by the partition in its id."""
        return self._prefix(int.from_bytes(task_id[:2]) % self.partitions) + b"~:task:" + task_id

    def job(self, task_id: bytes) -> bytes:
        """The work item of a task, by the partition in its id."""
        return self._prefix(int.from_bytes(task_id[:2]) % self.partitions) + b"~:job:" + task_id

    def final(self, task_id: bytes) -> bytes:
        """The final result of a task that is kept for repeats, by the partition in its id."""
        return self._prefix(int.from_bytes(task_id[:2]) % self.partitions) + b"~:final:" + task_id
