"""Where the pod's CPU goes, stage by stage, without servers: `python -m bench.stages` prints µs per decision.

Each stage is run over the whole workload, best of several passes; garbage collection stays on, as in the pod.
"""

import gc
import time
from collections.abc import Callable, Iterable, Iterator

from bench.rows import Calls, command, stored_policies
from bench.workload import requests
from router.domain.decide.answers import answer
from router.domain.decide.decision import PinState, Reason
from router.domain.decide.outcome import Admitted
from router.domain.decide.plan import plan
from router.domain.decide.request import DecideRequest
from router.wire.reply import encode
from router.wire.request.decide import decode

_COUNT, _PASSES, _BATCH = 20_000, 5, 128


def main() -> None:
    """Time every stage."""
    data = requests(_COUNT, 1)
    decoded = [r for r in (decode(d, None, None) for d in data) if isinstance(r, DecideRequest)]
    assert len(decoded) == _COUNT
    stored = stored_policies()
    pairs = [(r, plan(r, stored[r.tenant_id])) for r in decoded]
    calls = Calls()
    chunks = [pairs[at : at + _BATCH] for at in range(0, _COUNT, _BATCH)]
    batches = [calls.batch(chunk) for chunk in chunks]
    outcome = Admitted(0, Reason.STICKY, b"\1\0\0\0", PinState.HELD, bytes(16))
    answers = [answer(outcome, r, p, explain=False) for r, p in pairs]
    stages: dict[str, Iterable[object]] = {
        "decode": Again(lambda: (decode(d, None, None) for d in data)),
        "plan": Again(lambda: (plan(r, stored[r.tenant_id]) for r in decoded)),
        "pack rows": Again(lambda: (calls.batch(chunk) for chunk in chunks)),
        "RESP": Again(lambda: (command(*calls.script.call, len(b.index), *b.index, *b.rows) for b in batches)),
        "answer": Again(lambda: (answer(outcome, r, p, explain=False) for r, p in pairs)),
        "encode": Again(lambda: (encode(a, request_id="0" * 16, trace_id=None) for a in answers)),
    }
    # The workload itself lives longer than any pod's garbage: keep the collector from walking it.
    gc.freeze()
    total = 0.0
    for name, stage in stages.items():
        best = min(_timed(stage) for _ in range(_PASSES))
        total += best
        print(f"{name:10} {best / _COUNT * 1e6:6.2f} µs")
    print(f"{'all':10} {total / _COUNT * 1e6:6.2f} µs")


class Again:
    """An iterable that starts anew each time; results are dropped as they come."""

    def __init__(self, make: Callable[[], Iterator[object]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[object]:
        """Start anew."""
        return self._make()


def _timed(stage: Iterable[object]) -> float:
    start = time.process_time()
    for _ in stage:
        pass
    return time.process_time() - start


if __name__ == "__main__":
    main()
