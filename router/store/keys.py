"""Every key that we write: one function a kind, one table that says what it is.

A tenant belongs to one partition; the hash tag of a key is that partition, so a batch holds many tenants and a Cluster
still gets one slot a call. `~` cannot be in a tenant's name: `~:` keys belong to a partition and hold ids only, but
for `~:audit`, the log of what belongs to no tenant.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from msgspec import Struct

from router.domain.ids import owner_mark, partition_of
from router.store.tags import partition_tags

NO_TENANT = "~"
"""Stands where a tenant's name would be; under it the audit log of what belongs to no tenant can be read."""
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
    "census": KeyKind("<schema>:census", "string", "30 s", "the pod that samples the store"),
    "epochs": KeyKind("<schema>:epochs", "hash", "none", "alert epochs by condition and scope"),
    "unknown": KeyKind(
        "<schema>:unknown", "stream", "MAXLEN 10,000 and retention", "refusals of tenants that are not known here"
    ),
    "head": KeyKind(
        "<schema>:{p}:<tenant>:head", "string", "none", "tenant revision, stamp, off switch, drains, forced breakers"
    ),
    "policies": KeyKind("<schema>:{p}:<tenant>:policies", "hash", "none", "policy id → revision, hash, document"),
    "history": KeyKind(
        "<schema>:{p}:<tenant>:h:<policy>",
        "list",
        "bounded by ROUTER_POLICY_HISTORY; 30 d after a delete",
        "what a policy was, newest first: revision, hash, when, by whom, document",
    ),
    "state": KeyKind("<schema>:{p}:<tenant>:s", "string", "longest window in it", "tenant limits and all breakers"),
    "state_policy": KeyKind("<schema>:{p}:<tenant>:sp:<policy>", "string", "longest window in it", "policy limits"),
    "state_user": KeyKind("<schema>:{p}:<tenant>:su:<hash>", "string", "longest window in it", "a user's limits"),
    "state_provider": KeyKind(
        "<schema>:{p}:<tenant>:sv:<provider>", "string", "longest window in it", "limits of one provider"
    ),
    "figures": KeyKind(
        "<schema>:{p}:<tenant>:f", "string", "10 min", "live latency and cost of at most 64 providers, from results"
    ),
    "lease": KeyKind(
        "<schema>:{p}:<tenant>:c:<owner>", "zset", "longest lease in it", "concurrency leases: id → expiry in ms"
    ),
    "log": KeyKind(
        "<schema>:{p}:<tenant>:l:<owner>", "zset", "the limit's window", "charges of one limit of algorithm log"
    ),
    "pin": KeyKind("<schema>:{p}:<tenant>:pin:<hash>", "string", "the policy's sticky ttl", "provider of a session"),
    "audit": KeyKind("<schema>:{p}:<tenant>:audit", "stream", "MAXLEN and retention", "the tenant's audit log"),
    "acts": KeyKind(
        "<schema>:{p}:~:audit",
        "stream",
        "MAXLEN and retention",
        "what belongs to no tenant: roles used, turns of the gate, purges; in the partition of `~`",
    ),
    "audit_marks": KeyKind(
        "<schema>:{p}:<tenant>:am",
        "hash",
        "retention + 1 day",
        "the audit log as last looked at, how far its export has read",
    ),
    "idem": KeyKind(
        "<schema>{p}<name>", "string", "24 h", "answer of one request; name is 10 bytes of hash, the tenant in it"
    ),
    "claim": KeyKind(
        "<schema>{p}<name>:claim", "string", "time for its extensions", "decision_id of who prepares a request"
    ),
    "message": KeyKind("<schema>{p}m<hash>", "hash", "24 h", "of a message id: tenant → idempotency name"),
    "task": KeyKind("<schema>:{p}:~:task:<task>", "string", "job's, then tombstone's", "delivery record of a task"),
    "job": KeyKind(
        "<schema>:{p}:~:job:<task>",
        "string",
        "last deadline + 5 min, then tombstone's",
        "work item of a dispatched task; after its end what its caller is to be told, until it was",
    ),
    "due": KeyKind("<schema>:{p}:~:due", "zset", "bounded by tasks in flight", "task id → when to look at it, in ms"),
    "retain": KeyKind(
        "<schema>:{p}:~:retain",
        "zset",
        "bounded by tenants with a log",
        "tenant → when to look at its audit log, in ms",
    ),
    "strikes": KeyKind(
        "<schema>:{p}:~:strikes:<message>", "string", "1 h after the last", "how often a message could not be handled"
    ),
    "outbox": KeyKind("<schema>:{p}:~:outbox", "hash", "bounded by unpublished usage", "task id → usage event"),
}


@lru_cache(maxsize=_USERS_REMEMBERED)
def _user_name(user_id: str) -> bytes:
    return blake2b(user_id.encode(), digest_size=_USER_BYTES).digest()


def _message_name(message_id: str) -> bytes:
    return blake2b(message_id.encode(), digest_size=_MESSAGE_BYTES).digest()


class TenantKeys(Struct, frozen=True):
    """The keys of one tenant; those with an owner are made from `prefix`.

    `owner` is the tenant's mark in remembered answers.
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
        """What a policy was."""
        return b"%bh:%b" % (self.prefix, policy_id.encode())

    def policy_state(self, policy_id: str) -> bytes:
        """Policy-scope limits."""
        return b"%bsp:%b" % (self.prefix, policy_id.encode())

    def user_state(self, user_id: str) -> bytes:
        """User-scope limits; a user's name may be long or odd, so it is hashed."""
        return b"%bsu:%b" % (self.prefix, _user_name(user_id))

    def provider_state(self, provider: str) -> bytes:
        """Provider-scope limits."""
        return b"%bsv:%b" % (self.prefix, provider.encode())

    def lease(self, owner: bytes) -> bytes:
        """Concurrency leases of one limit, or of one provider."""
        return b"%bc:%b" % (self.prefix, owner)

    def log(self, owner: bytes) -> bytes:
        """Charges of one limit that remembers all of them."""
        return b"%bl:%b" % (self.prefix, owner)

    def pin(self, name: bytes) -> bytes:
        """The provider that a session is pinned to."""
        return self.pins + name

    def idem(self, name: bytes) -> bytes:
        """The remembered answer of a request."""
        return self.idem_prefix + name

    def claim(self, name: bytes) -> bytes:
        """Who prepares a request."""
        return b"%b%b:claim" % (self.idem_prefix, name)

    def message(self, message_id: str) -> bytes:
        """Where the decision of a message is."""
        return b"%bm%b" % (self.idem_prefix, _message_name(message_id))

    def task(self, task_id: bytes) -> bytes:
        """The delivery record."""
        return b"%btask:%b" % (self.shared, task_id)

    def job(self, task_id: bytes) -> bytes:
        """The work item."""
        return b"%bjob:%b" % (self.shared, task_id)


class Keys:
    """The names of one schema with one number of partitions."""

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
            p,
            prefix,
            self.idem_prefix(p),
            prefix + b"head",
            prefix + b"policies",
            prefix + b"s",
            prefix + b"audit",
            prefix + b"am",
            self.due(p),
            shared,
            prefix + b"pin:",
            prefix + b"f",
            owner_mark(tenant_id),
        )

    def tag(self, partition: int) -> bytes:
        """The hash tag of a partition."""
        return self._tags[partition]

    def _prefix(self, partition: int) -> bytes:
        return b"%b:{%b}:" % (self.schema.encode(), self._tags[partition])

    def idem_prefix(self, partition: int) -> bytes:
        """What precedes the 10-byte name; short, because there are millions of these keys."""
        return b"%b{%b}" % (self.schema.encode(), self._tags[partition])

    def message(self, partition: int, message_id: str) -> bytes:
        """Where the decision of a message is, if a tenant of this partition has it."""
        return b"%bm%b" % (self.idem_prefix(partition), _message_name(message_id))

    def due(self, partition: int) -> bytes:
        """When to look at which task."""
        return self._prefix(partition) + b"~:due"

    def retain(self, partition: int) -> bytes:
        """When to look at which tenant's audit log."""
        return self._prefix(partition) + b"~:retain"

    def outbox(self, partition: int) -> bytes:
        """Usage that is settled and not yet published."""
        return self._prefix(partition) + b"~:outbox"

    def failures(self, message: bytes) -> bytes:
        """How often a message could not be handled, by a hash of it; it may lie in any partition."""
        return self._prefix(int.from_bytes(message[:2]) % self.partitions) + b"~:strikes:" + message

    def task(self, task_id: bytes) -> bytes:
        """The delivery record of a task, by the partition in its id."""
        return self._prefix(int.from_bytes(task_id[:2]) % self.partitions) + b"~:task:" + task_id

    def job(self, task_id: bytes) -> bytes:
        """The work item of a task, by the partition in its id."""
        return self._prefix(int.from_bytes(task_id[:2]) % self.partitions) + b"~:job:" + task_id
