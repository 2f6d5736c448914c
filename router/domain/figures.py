"""Live figures: how fast and how dear a provider has been lately, as its settled results say.

    figure = (weight × live + the policy's) / (weight + 1)

`live` is a mean of the results of successes and `weight` what they weigh together: one each, half of that after 30 s,
never more than 32 (lua/include/figures.lua). So a few results move a figure a little, many take it over, and without
results it returns to the policy's: a provider that was slow is tried again within ten minutes. Where the policy gives
no figure, the live one stands alone.

    score = latency_ms + cost_microusd          lower is better: a millisecond weighs as much as a millionth of a USD

`best_score` orders by it. Results follow traffic and traffic follows results, so whoever is within a tenth of the best
gets a share by weighted rendezvous, which shrinks to nothing at the edge: no herd runs from one provider to the next,
and one whose figure recovers is tried by a few first. Without live figures nothing feeds back, and the order is strict.
"""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from router.domain.policy.model import Provider

NEAR_BEST = 0.1


class Live(NamedTuple):
    """What recent results say of one provider: means, and the weight behind each of them."""

    latency_ms: float
    latency_weight: float
    cost_microusd: float
    cost_weight: float


class Snapshot(Struct, frozen=True):
    """The live figures of a tenant at one moment, by provider entry.

    `version` is that moment (Redis ms; 0: there are none): equal versions of a tenant hold equal figures on every pod.
    """

    version: int
    live: Mapping[bytes, Live]


NO_FIGURES = Snapshot(0, {})

Share = tuple[int, float, int, int]
"""Rank (lower first), weight among those of equal rank, seed, place in the pool."""


def latency_and_cost(p: Provider, snapshot: Snapshot) -> tuple[int, int]:
    """What to expect of a provider, in ms and micro-USD."""
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
    """Ranks by priority tier, then by score; providers near the best of their tier share its rank."""
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
    """1 at the best score, 0 from a tenth above it."""
    edge = best * NEAR_BEST
    return max(0.0, 1 - (score - best) / edge) if edge else float(score == best)
