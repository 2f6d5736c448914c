"""The closed sets of the policy language: the words that a policy chooses from."""

from enum import StrEnum
from typing import assert_never


class Scope(StrEnum):
    """Who shares the counter of a limit."""

    TENANT = "tenant"
    USER = "user"
    POLICY = "policy"
    PROVIDER = "provider"


class Resource(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    COST = "cost"
    CONCURRENCY = "concurrency"


def is_estimated(resource: Resource) -> bool:
    """Whether a request's usage of the resource is an estimate until its result reports it."""
    match resource:
        case Resource.TOKENS | Resource.COST:
            return True
        case Resource.REQUESTS | Resource.CONCURRENCY:
            return False
        case _:
            assert_never(resource)


class Algorithm(StrEnum):
    """How a limit counts.

    `sliding`: in 12 sub-buckets; a unit is free again up to one bucket after its window. `log`: exact to the ms.
    """

    SLIDING = "sliding"
    LOG = "log"


class OnStoreError(StrEnum):
    """Whether a limit refuses or admits requests while the store is unavailable."""

    DENY = "deny"
    ALLOW = "allow"


class Selection(StrEnum):
    """How candidates are ordered: by weight, or by learned latency and cost."""

    WEIGHTED = "weighted"
    BEST_SCORE = "best_score"


class WhenAllOpen(StrEnum):
    """What to do if every candidate's breaker is open.

    `fail`: refuse. The others use the provider whose next probe is due first: `probe_one` for one probe at a time,
    `last_resort` for every request.
    """

    FAIL = "fail"
    PROBE_ONE = "probe_one"
    LAST_RESORT = "last_resort"


class Strategy(StrEnum):
    """How the delay grows from one retry to the next."""

    EXPONENTIAL = "exponential"
    LINEAR = "linear"
    FIXED = "fixed"


class OnFail(StrEnum):
    """What happens if a validator rejects a request, or fails."""

    BLOCK = "block"
    WARN = "warn"
    IGNORE = "ignore"
