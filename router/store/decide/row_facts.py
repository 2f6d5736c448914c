"""The parts of a row about its request: facts for later, reservations, and the keys of its charges."""

from router.domain.decide.candidates import Charge
from router.domain.decide.decision import Reason
from router.domain.decide.outcome import RequestFacts, Reservation
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.policy.model import provider_entry
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.domain.tasks.task import TaskFacts
from router.store.decide.batch import WaitingRow
from router.store.decide.row_parts import PolicyPart
from router.store.decide.row_templates import reservation
from router.store.keys import TenantKeys
from router.store.scripts import layouts
from router.store.tasks.records import task_facts

_WHICHEVER = bytes(layouts.FAILED.size)
# Members of an enum cost 60 ns each on Python 3.11, a global 5.
_USER = Scope.USER
_POLICY = Scope.POLICY
_PROVIDER = Scope.PROVIDER
_CONCURRENCY = Resource.CONCURRENCY
_LOG = Algorithm.LOG


def failed_provider(w: WaitingRow) -> bytes | None:
    """The entry of the provider that a session's caller reports as failed.

    A caller that names none means the one that it was sent to: that is the pin's, if a fallback rule leads elsewhere.
    """
    step, plan = w.request.step, w.plan
    if plan.pin is None or not step.failed:
        return None
    if step.current_provider:
        return provider_entry(step.current_provider)
    return _WHICHEVER if plan.candidates and plan.candidates[0].reason is Reason.FALLBACK else None


def charged_key(keys: TenantKeys, charge: Charge) -> bytes:
    """The key in which a charge is counted, unless that is the tenant's own state."""
    limit = charge.limit
    if limit.resource is _CONCURRENCY:
        return keys.lease(b"%b:%b" % (limit.entry, charge.owner.encode()))
    if limit.algorithm is _LOG:
        return keys.log(b"%b:%b" % (limit.entry, charge.owner.encode()))
    scope = limit.scope  # a tenant's limit is in the tenant's state, which every row names
    if scope is _USER:
        return keys.user_state(charge.owner)
    if scope is _POLICY:
        return keys.policy_state(charge.owner)
    return keys.provider_state(charge.owner)


def reservations_of(plan: Plan, part: PolicyPart) -> tuple[Reservation, ...]:
    """The reservations that a result will settle: estimates of tokens and cost, and leases. Requests are never given
    back.
    """
    found = [reservation(plan.charges[i]) for i in part.reserving]
    if not part.by_candidate:
        return tuple(found)
    for candidate in plan.candidates[:1]:
        # Only the script knows the chosen provider. Its name is in the answer, and −1 stands for its own cost.
        for x in candidate.charges:
            limit = x.limit
            if limit.resource is not Resource.REQUESTS:
                own = limit.resource is Resource.COST and x.units == candidate.expected_cost_microusd
                units = -1 if own else x.units
                log = limit.algorithm is _LOG
                found.append(Reservation(_PROVIDER, "", limit.resource, limit.entry, limit.window_ms, units, log))
    if any(c.provider.max_concurrency for c in plan.candidates):
        found.append(Reservation(_PROVIDER, "", _CONCURRENCY, b"", 0, 1))
    return tuple(found)


def request_facts(request: DecideRequest) -> RequestFacts:
    """The ids and the type that the stored answer of a metered request keeps."""
    c = request.correlation
    return RequestFacts(
        request.request_id,
        request.task_type,
        c.trace_id,
        c.run_id,
        c.flow_id,
        c.step_id,
        request.idempotency_key,
        request.user_id,
        request.client_ip,
    )


def task_record(request: DecideRequest, plan: Plan, reserved: tuple[Reservation, ...]) -> bytes:
    """The packed facts of a pushed request, for its delivery record."""
    c = request.correlation
    return task_facts(
        TaskFacts(
            request.tenant_id,
            plan.stored.policy_id,
            plan.stored.revision,
            request.request_id,
            request.task_type,
            request.assignment_subject,
            plan.max_attempts,
            plan.deadline_ms,
            request.options.result_subject,
            c.trace_id,
            c.run_id,
            c.flow_id,
            c.step_id,
            request.idempotency_key,
            request.user_id,
            reserved,
            request.options.backoff_ms,
            plan.unfinished,
            plan.by_rule,
            request.client_ip,
        )
    )
