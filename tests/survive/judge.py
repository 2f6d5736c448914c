"""What callers have seen, against the bounds of a row."""

from collections import Counter

from tests.survive.load import CUT, HUNG, NO_POD, OK, SteadyLoad
from tests.survive.row import Outcome, Row

LATE_TIMES = 20
_ON_TIME_S = 0.02
"""The timer of a load on a machine with CPU to spare is 5 to 20 ms late."""
SHORT_OF_CPU_S = 0.1
_IN_TIME_S = 0.05
"""Beyond that, deadlines of the store are missed for want of CPU, and fewer requests are served at once."""


def wider_s(late_s: float) -> float:
    """By how much bounds of time are wider where the load's own timer is so late.

    A request waits for CPU at every server and process on its way, and one that misses a deadline is asked again.
    """
    return LATE_TIMES * max(0.0, late_s - _ON_TIME_S)


def judge(
    row: Row, load: SteadyLoad, outcome: Outcome, *, began: float, ended: float, calm_at: float | None = None
) -> None:
    """What callers have seen since the fault began, and which bounds of the row were missed.

    The fleet has recovered with the last request that was not served. Where requests miss deadlines for want of CPU at
    any time, it has recovered at `calm_at`.
    """
    asks = [a for a in load.asks if a.ended >= began]
    late = [a for a in load.late_answers if a.ended >= began]
    fates = Counter(a.outcome for a in asks)
    fates.subtract(a.outcome for a in late)
    answered = [*late, *(a for a in asks if a.outcome not in (HUNG, CUT, NO_POD))]
    served = fates[OK]
    outcome.answers = len(answered)
    outcome.refused = {code: n for code, n in sorted(fates.items()) if code not in (OK, HUNG, CUT)}
    outcome.hung = fates[HUNG]
    outcome.worst_s = max((a.took_s for a in answered), default=0.0)
    outcome.recover_s = max((a.ended - ended for a in asks if a.outcome != OK and a.ended > ended), default=0.0)
    during = [a for a in asks if a.began < ended]
    outcome.decided = sum(a.outcome == OK for a in during) / max(ended - began, 0.001)
    outcome.late_s = load.late_s(began)
    if calm_at is not None and outcome.late_s >= SHORT_OF_CPU_S:
        outcome.recover_s = min(outcome.recover_s, calm_at - ended)
    wider = wider_s(outcome.late_s)
    share = row.served - 2 * max(0.0, outcome.late_s - _IN_TIME_S)
    bounds = {f"no request hangs ({outcome.hung}, at most {row.hung})": outcome.hung <= row.hung * (1 + wider)}
    if outcome.was_calm:
        worst, recovered = outcome.worst_s <= row.worst_s + wider, outcome.recover_s <= row.recover_s + wider
        bounds |= {
            f"every answer within {row.worst_s:g} s ({outcome.worst_s:.2f})": worst,
            f"recovered within {row.recover_s:g} s ({outcome.recover_s:.1f})": recovered,
            f"{row.served:.0%} served at once ({served} of {len(asks)})": served >= share * len(asks),
        }
    outcome.missed += [what for what, held in bounds.items() if not held]
    other = outcome.refused.keys() - row.refused - {NO_POD}
    outcome.missed += [f"refused with {code}, which is not promised" for code in sorted(other)]
