"""Estimate the memory of compiled policies, which bounds the policy cache."""

from enum import Enum
from sys import getsizeof

from msgspec import Struct

from router.domain.policy.model import TenantPolicies


def size_of(policies: TenantPolicies) -> int:
    """Return the memory of a tenant's policies in bytes, counting each object once and shared enum members not at all.

    `domain.policy.plan_cache.PlanCache` counts its own content.
    """
    counted: set[int] = set()
    unvisited: list[object] = [policies]
    size = 0
    while unvisited:
        value = unvisited.pop()
        if value is None or isinstance(value, Enum | bool) or id(value) in counted:
            continue
        counted.add(id(value))
        size += getsizeof(value)
        match value:
            case Struct():
                unvisited.extend(getattr(value, name) for name in value.__struct_fields__)
            case dict():
                unvisited.extend(value.keys())
                unvisited.extend(value.values())
            case list() | tuple():
                unvisited.extend(value)
            case _:
                pass
    return size
