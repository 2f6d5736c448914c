"""How much memory compiled policies take: the cache is bounded by it."""

from enum import Enum
from sys import getsizeof

from msgspec import Struct

from router.domain.policy.model import TenantPolicies


def size_of(policies: TenantPolicies) -> int:
    """The bytes that a tenant's policies take in memory, each object counted once; words of the language are shared.

    What planning remembers of them (`PlanCache`) counts itself.
    """
    seen: set[int] = set()
    waiting: list[object] = [policies]
    size = 0
    while waiting:
        value = waiting.pop()
        if value is None or isinstance(value, Enum | bool) or id(value) in seen:
            continue
        seen.add(id(value))
        size += getsizeof(value)
        match value:
            case Struct():
                waiting.extend(getattr(value, name) for name in value.__struct_fields__)
            case dict():
                waiting.extend(value.keys())
                waiting.extend(value.values())
            case list() | tuple():
                waiting.extend(value)
            case _:
                pass
    return size
