"""The hash tags of partitions: short, and spread over the slots of a Cluster."""

from itertools import product
from string import ascii_lowercase, digits

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot


def partition_tags(partitions: int) -> tuple[bytes, ...]:
    """One short tag per partition; partition p lies in the p-th of `partitions` equal parts of the slots.

    Deterministic: every version must choose the same tags.

    :raises ValueError: unless 1 ≤ partitions ≤ 4096.
    """
    if not 1 <= partitions <= 4096:
        raise ValueError(f"{partitions} partitions: must be 1 to 4096")
    tags: dict[int, bytes] = {}
    for length in (2, 3):
        for letters in product(ascii_lowercase + digits, repeat=length):
            tag = "".join(letters).encode()
            part = key_slot(tag) * partitions // REDIS_CLUSTER_HASH_SLOTS
            tags.setdefault(part, tag)
            if len(tags) == partitions:
                return tuple(tags[p] for p in range(partitions))
    raise ValueError(f"{partitions} partitions: no tag for every one")
