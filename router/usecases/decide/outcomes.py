"""The outcome of a decide row → the answer, with its metrics, audit lines and cache updates.

Serves requests with and without extensions. It runs once per decision, synchronously: no task, no await.
"""

import logging
import time
from collections.abc import Callable

from router.domain.decide.answers import answer, degraded
from router.domain.decide.decision import Answer, Decided
from router.domain.decide.outcome import Admitted, LimitHit, Outcome, Replay, RowFault, StoredAnswer, Unavailable
from router.domain.decide.plan import Plan, has_empty_session
from router.domain.decide.request import DecideRequest
from router.domain.defects import Defect, InputWarning
from router.domain.ids import to_text
from router.domain.policy.model import TenantPolicies
from router.domain.policy.vocabulary import OnStoreError
from router.log_throttle import LogThrottle
from router.ports.decisions import DecisionStore
from router.ports.policies import Policies
from router.telemetry import Event, Telemetry
from router.usecases.audit.log_lines import SILENT, AuditLines
from router.usecases.decide.intake import store_unavailable
from router.usecases.messages.input_defects import InputDefects

log = logging.getLogger("router.decide")

_EMPTY_SESSION = (InputWarning(Defect.NO_SESSION, "the session is blank or stands for none: treated as absent"),)


class Outcomes:
    """Reads outcomes; `read` is a `ports.extensions.OutcomeReader`, `admitted` its part for admitted rows.

    `on_store_error` applies to requests whose limits do not set it. `on_degraded` is called with each decision made
    without the store, `on_unrecorded` with each refusal that the store counted instead of recording, `on_replay` with
    each repeat.
    """

    def __init__(
        self,
        store: DecisionStore,
        policies: Policies,
        telemetry: Telemetry,
        on_store_error: OnStoreError,
        *,
        on_degraded: Callable[[DecideRequest, Plan, Decided], None],
        on_unrecorded: Callable[[DecideRequest, Plan], None] = lambda _request, _plan: None,
        on_replay: Callable[[DecideRequest, StoredAnswer], None] = lambda _request, _answer: None,
        audit_lines: AuditLines = SILENT,
    ) -> None:
        self._store = store
        self._policies = policies
        self._telemetry = telemetry
        self._on_store_error = on_store_error
        self._on_degraded = on_degraded
        self._on_unrecorded = on_unrecorded
        self._on_replay = on_replay
        self._audit_lines = audit_lines
        self._throttle = LogThrottle(time.monotonic)
        self._defects = InputDefects(telemetry, "request")

    def read(self, request: DecideRequest, plan: Plan, outcome: Outcome, stamp: bytes) -> Answer:
        """See `ports.extensions.OutcomeReader`."""
        explain = request.options.explain and "explain" not in plan.requires_cp
        if isinstance(outcome, Unavailable):
            if not outcome.sent:
                return self._degraded(request, plan, explain=explain)
        elif isinstance(outcome, Admitted):
            self.admitted(request, plan, outcome, stamp)
        else:
            self._observe(request, plan, outcome, stamp)
        if isinstance(outcome, RowFault):
            self._fault(request, outcome)
        elif isinstance(outcome, Replay):
            self._on_replay(request, outcome.remembered)
        elif isinstance(outcome, LimitHit):
            limit = plan.charges[outcome.charge].limit
            self._telemetry.limit_refusals.labels(limit.scope.value, limit.resource.value).inc()
            if not outcome.recorded:
                self._on_unrecorded(request, plan)
        return answer(outcome, request, plan, explain=explain)

    def admitted(self, request: DecideRequest, plan: Plan, outcome: Admitted, stamp: bytes) -> None:
        """Do all that `read` does for an admitted row, except for building its answer."""
        self._observe(request, plan, outcome, stamp)
        if outcome.pin:
            self._telemetry.pins[outcome.pin].inc()
        elif plan.stored.policy.sticky is not None and has_empty_session(request, plan.stored):
            self._defects.count(_EMPTY_SESSION, request.tenant_id)
        if outcome.shadow:
            self._telemetry.shadow_hits.inc()

    def _observe(self, request: DecideRequest, plan: Plan, outcome: Outcome, stamp: bytes) -> None:
        self._policies.observe(request.tenant_id, stamp)
        if self._audit_lines.on:
            self._audit_lines.decided(request, plan, outcome)

    def _fault(self, request: DecideRequest, fault: RowFault) -> None:
        self._telemetry.store_row_faults.inc()
        # Every request of the tenant hits a damaged key: the log is throttled, the metric counts all.
        if (suppressed := self._throttle.due(f"{request.tenant_id} {fault.message}")) is not None:
            fields = {"event": Event.STORE_ROW_FAULT, "tenant_id": request.tenant_id, "unsaid": suppressed}
            log.error(fault.message, extra=fields)

    def _degraded(self, request: DecideRequest, plan: Plan, *, explain: bool) -> Answer:
        policies = self._policies.get(request.tenant_id)
        if not isinstance(policies, TenantPolicies):
            # The tenant was evicted after planning: its levers are unknown, so no degraded answer is safe.
            return store_unavailable(request)
        answered = degraded(
            request,
            plan,
            policies.head,
            default=self._on_store_error,
            decision_id=to_text(self._store.new_decision_id(request, plan)),
            explain=explain,
        )
        if isinstance(answered, Decided):
            self._on_degraded(request, plan, answered)
            if self._audit_lines.on:
                self._audit_lines.degraded(request, plan, answered)
        return answered
