"""Figures: the latency and the cost of a provider, learned from its recent settled results.

    figure = (weight × learned + the policy's) / (weight + 1)

`learned` is the weighted mean of successful results. `weight` is the sum of their weights: each result starts with
weight 1, which halves every 30 s; the sum is at most 32 (lua/include/figures.lua). A few results change a figure a
little, and many results determine it. Without results a figure returns to the policy's, so a provider that was slow is
tried again within ten minutes. If the policy gives no figure, the learned one is used alone.

    score = latency_ms + cost_microusd, lower is better: a millisecond weighs as much as a millionth of a USD

`best_score` orders providers by this score. The scores are a feedback loop: traffic follows results, and results follow
traffic. If the best provider got all requests, they would move together from one provider to the next. Therefore
providers within a tenth of the best score share the traffic by weighted rendezvous, and the share falls to zero at that
edge. A provider whose figure recovers gets only a few requests at first. Without learned figures there is no feedback,
and the order by score is strict.
"""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from router.domain.policy.model import Provider

NEAR_BEST = 0.1


class Live(NamedTuple):
    """The recent results of one provider: the means, and the weight of each mean."""

    latency_ms: float
    latency_weight: float
    cost_microusd: float
    cost_weight: float


class Snapshot(Struct, frozen=True):
    """The learned figures of a tenant as of one moment, by provider entry.

    `version` is that moment in Redis ms; 0: there are no figures. Snapshots of a tenant with equal versions have equal
    figures on every pod.
    """

    version: int
    live: Mapping[bytes, Live]


NO_FIGURES = Snapshot(0, {})

Share = tuple[int, float, int, int]
"""Rank (lower is first), weight among providers of equal rank, seed, index in the pool."""


def latency_and_cost(p: Provider, snapshot: Snapshot) -> tuple[int, int]:
    """The expected latency in ms and cost in micro-USD of a provider."""
    live = snapshot.live.get(p.entry)
    if live is None:
        return p.expected_latency_ms, p.expected_cost_microusd
    return (
        _refined(p.expected_latency_ms, live.latency_ms, live.latency_weight),
        _refined(p.expected_cost_microusd, live.cost_microusd, live.cost_weight),
    )


def _refined(policy_figure: int, learned: float, weight: float) -> int:
    if not weight:
        return policy_figure
    return round((weight * learned + policy_figure) / (weight + 1)) if policy_figure else round(learned)


def shares_by_score(pool: tuple[Provider, ...], snapshot: Snapshot) -> tuple[Share, ...]:
    """Rank providers by priority, then by score. Providers near the best score of their priority share its rank."""
    scores = [sum(latency_and_cost(p, snapshot)) for p in pool]
    order = sorted(range(len(pool)), key=lambda i: (-pool[i].priority, scores[i], pool[i].name))
    shares: list[Share] = []
    best, priority, rank = 0, None, 0
    for position, i in enumerate(order):
        p = pool[i]
        if p.priority != priority:
            best, priority, rank = scores[i], p.priority, position
        near = _nearness(scores[i], best) if snapshot.version else 0.0
        shares.append((rank, p.weight * near, p.seed, i) if near else (position, p.weight, p.seed, i))
    return tuple(shares)


def _nearness(score: float, best: float) -> float:
    """1 at the best score, falling to 0 at a tenth above it."""
    edge = best * NEAR_BEST
    return max(0.0, 1 - (score - best) / edge) if edge else float(score == best)
