"""Figures: latency and cost of a provider, learned from its recent settled results.

    figure = (weight × learned + the policy's) / (weight + 1)

`learned` is a mean of the results of successes, and `weight` is their weight together: 1 for each, half of that after
30 s, at most 32 (lua/include/figures.lua). So a few results move a figure a little and many take it over. Without
results it returns to the policy's figure, so a provider that was slow is tried again within ten minutes. Where the
policy gives no figure, the learned one stands alone.

    score = latency_ms + cost_microusd, lower is better: a millisecond weighs as much as a millionth of a USD

`best_score` orders by it. Results follow traffic and traffic follows results. To avoid a herd, providers within a tenth
of the best share the traffic by weighted rendezvous; the share shrinks to nothing at the edge. A provider whose figure
recovers thus gets a few requests first. Without learned figures nothing feeds back, and the order is strict.
"""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from router.domain.policy.model import Provider

NEAR_BEST = 0.1


class Live(NamedTuple):
    """The recent results of one provider: means, and the weight behind each of them."""

    latency_ms: float
    latency_weight: float
    cost_microusd: float
    cost_weight: float


class Snapshot(Struct, frozen=True):
    """The learned figures of a tenant at one moment, by provider entry.

    `version` is that moment (Redis ms; 0: there are none). Equal versions of a tenant have equal figures on every pod.
    """

    version: int
    live: Mapping[bytes, Live]


NO_FIGURES = Snapshot(0, {})

Share = tuple[int, float, int, int]
"""Rank (lower first), weight among those of equal rank, seed, index in the pool."""


def latency_and_cost(p: Provider, snapshot: Snapshot) -> tuple[int, int]:
    """The expected latency in ms and cost in micro-USD of a provider."""
    live = snapshot.live.get(p.entry)
    if live is None:
        return p.expected_latency_ms, p.expected_cost_microusd
    return (
        _refined(p.expected_latency_ms, live.latency_ms, live.latency_weight),
        _refined(p.expected_cost_microusd, live.cost_microusd, live.cost_weight),
    )


def _refined(policys: int, live: float, weight: float) -> int:
    if not weight:
        return policys
    return round((weight * live + policys) / (weight + 1)) if policys else round(live)


def shares_by_score(pool: tuple[Provider, ...], snapshot: Snapshot) -> tuple[Share, ...]:
    """Ranks by priority tier, then by score. Providers near the best of their tier share its rank."""
    scores = [sum(latency_and_cost(p, snapshot)) for p in pool]
    order = sorted(range(len(pool)), key=lambda i: (-pool[i].priority, scores[i], pool[i].name))
    shares: list[Share] = []
    best, tier, rank = 0, None, 0
    for place, i in enumerate(order):
        p = pool[i]
        if p.priority != tier:
            best, tier, rank = scores[i], p.priority, place
        near = _nearness(scores[i], best) if snapshot.version else 0.0
        shares.append((rank, p.weight * near, p.seed, i) if near else (place, p.weight, p.seed, i))
    return tuple(shares)


def _nearness(score: float, best: float) -> float:
    """1 at the best score, falling to 0 at a tenth above it."""
    edge = best * NEAR_BEST
    return max(0.0, 1 - (score - best) / edge) if edge else float(score == best)
