"""The effect of a policy change on traffic: which share of requests each provider gets before and after."""

from msgspec import Struct

from router.domain.policy.model import Policy
from router.domain.policy.vocabulary import Selection

_TENTH = 0.001


class ShareChange(Struct, frozen=True, kw_only=True):
    """The share of requests, 0..1, that have this provider as their first candidate, before and after a change."""

    provider: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.provider} {_percent(self.before)} → {_percent(self.after)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def share_changes(before: Policy | None, *, after: Policy | None) -> tuple[ShareChange, ...]:
    """List the shares that change by at least a tenth of a percent, ordered by provider.

    A policy that is None does not exist. All other requests keep their first candidate (rendezvous hashing), unless
    pins, breakers or limits intervene. A policy that selects by learned figures has no fixed shares.
    """
    old, new = _shares(before), _shares(after)
    changes = (
        ShareChange(provider=name, before=old.get(name, 0.0), after=new.get(name, 0.0))
        for name in sorted(old.keys() | new.keys())
    )
    return tuple(c for c in changes if abs(c.after - c.before) >= _TENTH)


def _shares(policy: Policy | None) -> dict[str, float]:
    """The shares by provider. Only the weights of the highest priority count."""
    if policy is None or policy.selection is not Selection.WEIGHTED or not policy.pool:
        return {}
    highest = max(p.priority for p in policy.pool)
    first = [p for p in policy.pool if p.priority == highest]
    total = sum(p.weight for p in first)
    return {p.name: p.weight / total for p in first}
