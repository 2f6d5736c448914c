"""What happens to the fleet, as a function of the seed: the same seed gives the same faults in the same order."""

import random
from typing import Literal

from msgspec import Struct

Kind = Literal[
    "pod.kill",
    "pod.term",
    "pod.freeze",
    "worker.kill",
    "worker.term",
    "worker.freeze",
    "nats.kill",
    "nats.freeze",
    "redis.kill",
    "redis.freeze",
    "nats.cut",
    "nats.half",
    "nats.delay",
    "nats.hole",
    "stream.full",
    "stream.overlap",
    "redis.cut",
    "redis.half",
    "redis.delay",
    "redis.hole",
]

WEIGHTS: dict[Kind, int] = {
    "pod.kill": 8,
    "pod.term": 5,
    "pod.freeze": 6,
    "worker.kill": 6,
    "worker.term": 4,
    "worker.freeze": 4,
    "nats.kill": 4,
    "nats.freeze": 3,
    "redis.kill": 4,
    "redis.freeze": 4,
    "nats.cut": 12,
    "nats.half": 6,
    "nats.delay": 6,
    "nats.hole": 4,
    "stream.full": 4,
    "stream.overlap": 2,
    "redis.cut": 12,
    "redis.half": 6,
    "redis.delay": 6,
    "redis.hole": 4,
}
MEAN_PAUSE_MS = 330
EVERYWHERE = 0.4
LONG = 0.03
"""The share of faults that last longer than the fleet's own patience with publishes and deadlines."""


class Fault(Struct, frozen=True):
    """One fault. `pick`: which pod, worker or connection, modulo how many there are. `hold_ms`: how long it lasts, or
    until the killed process is started again. `after_bytes`: a connection is cut once so many more have passed;
    `everywhere`: each connection is, not only the picked one. `upstream`: the way from client to server is hit, else
    the way back. `pause_ms`: before the next fault.
    """

    number: int
    kind: Kind
    pick: int
    hold_ms: int
    after_bytes: int
    everywhere: bool
    upstream: bool
    pause_ms: int

    def __str__(self) -> str:
        where = "everywhere" if self.everywhere else f"#{self.pick}"
        way = "up" if self.upstream else "down"
        return f"{self.number} {self.kind} {where} {self.hold_ms} ms, {self.after_bytes} B {way}"


def _hold_ms(dice: random.Random) -> int:
    short, long = int(dice.triangular(40, 1_500, 200)), dice.randint(4_000, 18_000)
    return long if dice.random() < LONG else short


def schedule(seed: int, count: int) -> list[Fault]:
    """The first `count` faults of a seed; a longer campaign of the same seed begins with them.

    Every kind comes once before any is drawn by weight, so that a campaign of 20 or more faults has them all.
    """
    dice = random.Random(seed)  # noqa: S311 - repeatable on purpose
    first = list(WEIGHTS)
    dice.shuffle(first)
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    return [
        Fault(
            number=n + 1,
            kind=first[n] if n < len(first) else dice.choices(kinds, weights)[0],
            pick=dice.randrange(1 << 16),
            hold_ms=_hold_ms(dice),
            after_bytes=int(dice.paretovariate(0.35)) % 40_000,
            everywhere=dice.random() < EVERYWHERE,
            upstream=dice.random() < 0.5,
            pause_ms=dice.randint(MEAN_PAUSE_MS // 3, MEAN_PAUSE_MS * 5 // 3),
        )
        for n in range(count)
    ]
