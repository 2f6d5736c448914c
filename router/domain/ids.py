"""Ids and names that carry the partition of their record.

A tenant belongs to one partition. Every id is a UUID in the shape of version 4, and starts with its partition (2 bytes,
big-endian). A result therefore finds its record without trust in its tenant field:

    decision_id    pp pp nn nn nn nn nn nn nn nn nn nn rr rr rr rr
    task_id        pp pp tt tt tt tt tt tt tt tt tt tt tt tt tt 01
    assignment_id  as task_id, with the attempt number in the last byte

p is the partition. n names the idempotency key: a hash of tenant, namespace, key and step. r is random per decision. t
is a hash of the decision_id. The same request therefore gets new ids a day later, and all ids of a task follow from its
decision_id.
"""

from hashlib import blake2b
from typing import Literal

PARTITION_BYTES = 2
NAME_BYTES = 10
RANDOM_BYTES = 4
OWNER_BYTES = 3
MAX_ATTEMPT = 255
Namespace = Literal["request", "key"]

_VERSION_MASK, _VERSION_4 = 0x0F, 0x40
_VARIANT_MASK, _VARIANT_RFC = 0x3F, 0x80
# The same shape for the 10 bytes of a name, which are bytes 2 to 12 of an id.
_NAME_MASK = int.from_bytes(bytes.fromhex("ffffffff0fff3fffffff"))
_NAME_SHAPE = int.from_bytes(bytes.fromhex("00000000400080000000"))


def partition_of(tenant_id: str, partitions: int) -> int:
    """The tenant's partition. Tenants spread evenly, and the result is the same for every version and machine."""
    return int.from_bytes(blake2b(tenant_id.encode(), digest_size=8).digest()) % partitions


def _uuid4_shaped(raw: bytearray) -> bytes:
    raw[6] = raw[6] & _VERSION_MASK | _VERSION_4
    raw[8] = raw[8] & _VARIANT_MASK | _VARIANT_RFC
    return bytes(raw)


def idempotency_name(tenant_id: str, namespace: Namespace, key: str, *, step: str = "") -> bytes:
    """The 10 bytes that name one idempotency key of one tenant: 74 bits of hash and 6 fixed bits of the UUID shape.

    `namespace` separates request ids from idempotency keys. `step` is the caller's fallback step: a request for the
    next provider gets a decision of its own. The fields are joined by NUL, so no field may contain it.
    """
    digest = blake2b(f"{tenant_id}\0{namespace}\0{key}\0{step}".encode(), digest_size=NAME_BYTES).digest()
    return (int.from_bytes(digest) & _NAME_MASK | _NAME_SHAPE).to_bytes(NAME_BYTES)


def decision_id(partition: int, name: bytes, random: bytes) -> bytes:
    """The 16 bytes of a decision_id. `name` comes from `idempotency_name`; `random` is 4 fresh random bytes."""
    return partition.to_bytes(PARTITION_BYTES) + name + random


def owner_mark(tenant_id: str) -> bytes:
    """3 bytes that distinguish the tenants of one partition, because an id names only the partition.

    Two tenants of a partition can have the same mark, with a probability of 2⁻²⁴.
    """
    return blake2b(tenant_id.encode(), digest_size=OWNER_BYTES, person=b"owner").digest()


def name_in(decision: bytes) -> bytes:
    """The idempotency name in a decision_id."""
    return decision[PARTITION_BYTES : PARTITION_BYTES + NAME_BYTES]


def partition_in(some_id: bytes) -> int:
    """The partition in a decision, task or assignment id."""
    return int.from_bytes(some_id[:PARTITION_BYTES])


def task_id(decision: bytes) -> bytes:
    """The task_id of a dispatched decision; it is also the assignment_id of the first attempt."""
    raw = bytearray(decision[:PARTITION_BYTES])
    raw += blake2b(decision, digest_size=13, person=b"task").digest()
    raw.append(1)
    return _uuid4_shaped(raw)


def assignment_id(task: bytes, attempt: int) -> bytes:
    """The id of one attempt of a task. Attempts are numbered from 1.

    :raises ValueError: the attempt is outside 1..255.
    """
    if not 1 <= attempt <= MAX_ATTEMPT:
        raise ValueError(f"attempt {attempt} is outside 1..{MAX_ATTEMPT}")
    return task[:-1] + bytes((attempt,))


def task_of(assignment: bytes) -> bytes:
    """The task_id of an assignment."""
    return assignment[:-1] + b"\x01"


def attempt_in(assignment: bytes) -> int:
    """The attempt number in an assignment_id."""
    return assignment[-1]


def to_text(some_id: bytes) -> str:
    """The UUID text of 16 bytes."""
    h = some_id.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def from_text(text: str) -> bytes | None:
    """The 16 bytes of a UUID text; None if the text is not a UUID."""
    h = text.replace("-", "")
    if len(h) != 32 or len(text) != 36:
        return None
    try:
        return bytes.fromhex(h)
    except ValueError:
        return None
