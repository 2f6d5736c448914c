"""Results of the workload's decisions → the arguments of lua/settle.lua, as a pod sends them.

Every result is a success that its caller reports: it corrects the reserved tokens, counts on the provider's breaker,
teaches the provider's figures, and leaves an audit record and a usage event.
"""

from collections.abc import Iterator, Sequence

from bench.rows import PARTITIONS, SCHEMA, stored_policies
from router.domain.audit.records import TaskFeatures
from router.domain.decide.outcome import Reservation
from router.domain.decide.request import DecideRequest
from router.domain.policy.model import Limit, provider_entry
from router.domain.policy.vocabulary import Resource
from router.domain.tasks.result import BreakerVerdict, Measurements
from router.domain.tasks.task import Action, Correction, Move, TaskState
from router.store.decide.calls import LaneSettings
from router.store.keys import Keys
from router.store.scripts.layouts import SETTLE_BATCH
from router.store.tasks.settle_rows import MoveBatch
from router.usecases.audit.features import pack_features

Decided = tuple[DecideRequest, bytes]
"""A request and its decision id."""

_USAGE = b"u" * 250
_UNUSED_TOKENS = 50


class Settlements:
    """Packs results of decisions that were charged at `charged_ms`."""

    def __init__(self, charged_ms: int) -> None:
        self._charged_ms = charged_ms
        self._stored = stored_policies()
        self._keys = Keys(SCHEMA, PARTITIONS)
        settings = LaneSettings()
        self._header = SETTLE_BATCH.head.pack(settings.audit_max_len, settings.deadline_max_ms)

    def batches(self, decided: Sequence[Decided], per_call: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Keys and arguments of the results in calls of `per_call` rows."""
        for first in range(0, len(decided), per_call):
            batch = MoveBatch()
            for number, (request, decision) in enumerate(decided[first : first + per_call], first):
                batch.add(self._move(request, decision, number), self._keys, number)
            yield list(batch.index), [self._header, *batch.rows]

    def _move(self, request: DecideRequest, decision: bytes, number: int) -> Move:
        policy = self._stored[request.tenant_id].policy
        provider = policy.providers[number % len(policy.providers)].name
        tokens = next(limit for limit in policy.limits if limit.resource is Resource.TOKENS)
        features = TaskFeatures(
            request.request_id, "default", 1, provider, None, request.user_id, None, "success", None, 412, 1800, 700
        )
        return Move(
            tenant_id=request.tenant_id,
            decision_id=decision,
            action=Action.RESULT_SETTLED,
            features=pack_features(features),
            state=TaskState.SUCCEEDED,
            verdict=BreakerVerdict.SUCCESS,
            breaker=policy.breaker,
            provider_entry=provider_entry(provider),
            usage=_USAGE,
            charged_ms=self._charged_ms,
            corrections=(_unused(tokens),),
            taught=Measurements(latency_ms=412, cost_microusd=1800),
            mark=b"r" * 8,
        )


def _unused(limit: Limit) -> Correction:
    reserved = Reservation(limit.scope, "", limit.resource, limit.entry, limit.window_ms, 0)
    return Correction(reserved, "", -_UNUSED_TOKENS)
