"""The names of all keys that the router writes; `key_kinds.KEYS` describes their kinds.

A tenant belongs to one partition, and the partition is the hash tag of its keys. So one call can serve many tenants of
a partition, although a Cluster allows a call only one slot.

A tenant's name cannot contain `~`. Keys with `~` in its place belong to the whole partition. The exception is
`~:audit`, the log of acts that belong to no tenant.
"""

from functools import lru_cache
from hashlib import blake2b

from msgspec import Struct

from router.domain.ids import owner_mark, partition_of
from router.store.tags import partition_tags

NO_TENANT = "~"
"""Stands in place of a tenant's name.

`router audit query --tenant '~'` reads the log of acts that belong to no tenant.
"""
MARKER_MS = 1_000
"""Life of what is written before WAIT."""
_USER_BYTES = 12
_MESSAGE_BYTES = 10
_TENANTS_REMEMBERED = 20_000
_USERS_REMEMBERED = 50_000


@lru_cache(maxsize=_USERS_REMEMBERED)
def _user_name(user_id: str) -> bytes:
    return blake2b(user_id.encode(), digest_size=_USER_BYTES).digest()


def _message_name(message_id: str) -> bytes:
    return blake2b(message_id.encode(), digest_size=_MESSAGE_BYTES).digest()


def tag_of(key: bytes) -> bytes:
    """The hash tag of a key of a tenant or partition."""
    return key.partition(b"{")[2].partition(b"}")[0]


def marker_beside(key: bytes) -> bytes:
    """What is written before WAIT, in the partition of a key."""
    schema, _, rest = key.partition(b"{")
    return b"%b:{%b}:~:wait" % (schema.removesuffix(b":"), rest.partition(b"}")[0])


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

    @property
    def wait(self) -> bytes:
        """What is written before WAIT."""
        return self.shared + b"wait"

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
