"""What the store said of a row → the answer: counted, learned from, and told to whoever must know.

Requests with and without extensions are read alike. A call is part of every decision: it takes no task and no await.
"""

import logging
import time
from collections.abc import Callable

from router.domain.answers import answer, degraded
from router.domain.decision import Answer, Decided
from router.domain.ids import to_text
from router.domain.outcome import Admitted, LimitHit, Outcome, RowFault, Unavailable
from router.domain.plan import Plan
from router.domain.policy.model import OnStoreError, TenantPolicies
from router.domain.request import DecideRequest
from router.log_throttle import LogThrottle
from router.ports.decisions import DecisionStore
from router.ports.policies import Policies
from router.telemetry import Event, Telemetry
from router.usecases.audit.log_lines import SILENT, AuditLines
from router.usecases.decide.intake import store_away

log = logging.getLogger("router.decide")


class Outcomes:
    """`read` is a `ports.extensions.OutcomeReader`. `on_store_error`: for requests without a limit that says it."""

    def __init__(
        self,
        store: DecisionStore,
        policies: Policies,
        telemetry: Telemetry,
        on_store_error: OnStoreError,
        *,
        degraded_made: Callable[[DecideRequest, Plan, Decided], None],
        unrecorded: Callable[[DecideRequest, Plan], None] = lambda _request, _plan: None,
        audit_lines: AuditLines = SILENT,
    ) -> None:
        self._store = store
        self._policies = policies
        self._telemetry = telemetry
        self._on_store_error = on_store_error
        self._degraded_made = degraded_made
        self._unrecorded = unrecorded
        self._audit_lines = audit_lines
        self._throttle = LogThrottle(time.monotonic)

    def read(self, request: DecideRequest, made: Plan, outcome: Outcome, stamp: bytes) -> Answer:
        """See `ports.extensions.OutcomeReader`."""
        explain = request.options.explain and "explain" not in made.requires_cp
        if isinstance(outcome, Unavailable):
            if not outcome.sent:
                return self._degraded(request, made, explain=explain)
        else:
            self._policies.observe(request.tenant_id, stamp)
            if self._audit_lines.on:
                self._audit_lines.decided(request, made, outcome)
        if isinstance(outcome, RowFault):
            self._telemetry.store_row_faults.inc()
            # A damaged key is met by every request of its tenant; the metric counts them all.
            if (unsaid := self._throttle.due(f"{request.tenant_id} {outcome.message}")) is not None:
                fields = {"event": Event.STORE_ROW_FAULT, "tenant_id": request.tenant_id, "unsaid": unsaid}
                log.error(outcome.message, extra=fields)
        elif isinstance(outcome, Admitted):
            if outcome.shadow:
                self._telemetry.shadow_hits.inc()
        elif isinstance(outcome, LimitHit):
            limit = made.charges[outcome.charge].limit
            self._telemetry.limit_refusals.labels(limit.scope.value, limit.resource.value).inc()
            if not outcome.recorded:
                self._unrecorded(request, made)
        return answer(outcome, request, made, explain=explain)

    def _degraded(self, request: DecideRequest, made: Plan, *, explain: bool) -> Answer:
        known = self._policies.get(request.tenant_id)
        if not isinstance(known, TenantPolicies):
            # Evicted since it was planned: nobody knows what operators hold.
            return store_away(request)
        found = degraded(
            request,
            made,
            known.head,
            default=self._on_store_error,
            decision_id=to_text(self._store.new_decision_id(request, made)),
            explain=explain,
        )
        if isinstance(found, Decided):
            self._degraded_made(request, made, found)
            if self._audit_lines.on:
                self._audit_lines.degraded(request, made, found)
        return found
