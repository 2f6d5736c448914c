"""One decide request, from its bytes to its reply.

    bytes → wire.decide → gate, tenant, policy (in process) → domain.decide.plan → the decide row → reply (→ dispatch)

Every request gets exactly one reply. A request runs in callbacks, without an asyncio task of its own, with two
exceptions: the first read of a tenant's figures, and calling a policy's extensions (`usecases.extensions.flow`).

From half of `max_in_flight` on, a request is refused before it is decoded if its tenant has its share of the pod
(`domain.decide.admission`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial

from msgspec.structs import replace

from router.domain.audit.identity import PLAINLY, AuditIdentity, Naming
from router.domain.decide.admission import Admission
from router.domain.decide.decision import Answer, Code, Refused
from router.domain.decide.figures import NO_FIGURES, Snapshot
from router.domain.decide.outcome import Admitted, Outcome
from router.domain.decide.plan import Plan, plan
from router.domain.decide.request import DecideRequest
from router.domain.defects import Warnings
from router.domain.gate import Features
from router.domain.policy.model import StoredPolicy, TenantPolicies
from router.ports.decisions import DecisionStore
from router.ports.extensions import Extensions
from router.ports.policies import Loading, Policies
from router.ports.tasks import Dispatch
from router.telemetry import Event, Telemetry
from router.tracing import Tracing
from router.usecases.decide.intake import DecideSettings, extensions_gated, forbidden, no_policy
from router.usecases.decide.open_request import OpenRequest
from router.usecases.decide.outcomes import Outcomes
from router.usecases.decide.overload import Overload, Reply
from router.usecases.decide.policy_wait import PolicyWait
from router.usecases.decide.standstill import Standstill
from router.usecases.messages.input_defects import InputDefects
from router.wire.admitted_reply import AdmittedReplies
from router.wire.problems import Rejected
from router.wire.reply import encode, encode_protobuf
from router.wire.request.decide import decode
from router.wire.request.protobuf import is_protobuf
from router.wire.worker.job import encode_job

log = logging.getLogger("router.decide")

FIRST_READ_S = 0.05
"""The longest time that a request waits for the first read of its tenant's figures."""


class Decide:
    """Answers decide requests; `handle` is the entry point of every transport.

    `first_read`: the first read of a tenant's figures while it is under way; see `sampling.figures.LiveFigures`.
    """

    def __init__(
        self,
        store: DecisionStore,
        policies: Policies,
        features: Callable[[], Features],
        dispatch: Dispatch,
        telemetry: Telemetry,
        settings: DecideSettings,
        *,
        outcomes: Outcomes,
        tracing: Tracing,
        extensions: Extensions,
        snapshot: Callable[[str], Snapshot] = lambda _: NO_FIGURES,
        first_read: Callable[[str], "asyncio.Future[None] | None"] = lambda _: None,
        on_unknown_tenant: Callable[[DecideRequest, Refused], None] = lambda _request, _refused: None,
        on_isolation_violation: Callable[[], None] = lambda: None,
        push_refusal: Callable[[str | None], Refused | None] = lambda _subject: None,
        identity: AuditIdentity = PLAINLY,
        standstill: Standstill | None = None,
    ) -> None:
        self._store = store
        self._policies = policies
        self._features = features
        self._dispatch = dispatch
        self._telemetry = telemetry
        self._defects = InputDefects(telemetry, "request")
        self._settings = settings
        self._outcomes = outcomes
        self._admitted_replies = AdmittedReplies()
        self._tracing = tracing
        self._extensions = extensions
        self._snapshot = snapshot
        self._first_read = first_read
        self._on_unknown_tenant = on_unknown_tenant
        self._on_isolation_violation = on_isolation_violation
        self._push_refusal = push_refusal
        self._hide = None if identity.naming is Naming.PLAIN else identity.hide
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._standstill = standstill or Standstill(_caught_up_at_once)
        self._admission = Admission(settings.max_in_flight)
        self._policy_wait = PolicyWait(
            policies,
            self._admission,
            settings.wait_s,
            decide=self._decide_under,
            finish=self._finish,
            bug=self._answer_bug,
        )
        self._overload = Overload(
            self._admission,
            policies,
            features,
            telemetry,
            settings,
            standstill=self._standstill,
            clock=self._loop.time,
        )

    @property
    def in_flight(self) -> int:
        """Number of requests without an answer yet."""
        return self._admission.in_flight

    @property
    def shed_at(self) -> float:
        """Loop time of the last refusal for overload that concerns all callers, in s."""
        return self._overload.shed_at

    def handle(
        self, data: bytes, headers: Mapping[str, str] | None, subject_tenant: str | None, reply: Reply | None
    ) -> None:
        """Take one request and call `reply` exactly once. Without `reply`, only a request that pushes is decided."""
        protobuf = headers is not None and is_protobuf(_content_type(headers))
        started = self._loop.time()
        admission = self._admission
        if (
            admission.in_flight >= admission.crowded_at or started > self._standstill.alive_until
        ) and self._overload.refuse_unread(data, headers, subject_tenant, reply, protobuf=protobuf, now=started):
            return
        request = decode(
            data,
            headers,
            subject_tenant,
            strict=self._settings.strict_correlation,
            result_prefixes=self._settings.result_subject_prefixes,
            max_deadline_ms=self._settings.deadline_max_ms,
        )
        if isinstance(request, Rejected):
            self._telemetry.decisions.count(request.refused, "", self._loop.time() - started)
            if request.refused.code is Code.UNAUTHORIZED:
                # Subject, header and body name different tenants.
                self._on_isolation_violation()
            self._send_reply(reply, protobuf, request.refused, request.request_id, request.trace_id)
            return
        if self._hide is not None:
            request = self._hide(request)
        if reply is None and not request.push_assignment:
            return
        if request.warnings:
            self._defects.count(request.warnings, request.tenant_id)
        tenant_id = request.tenant_id
        if admission.in_flight >= admission.crowded_at and self._overload.refuse_over_share(
            tenant_id, reply, protobuf=protobuf
        ):
            return
        if admission.in_flight == 0:
            self._idle.clear()
        admission.enter(tenant_id)
        opened = OpenRequest(request, protobuf, reply, started, tenant_id)
        try:
            if self._tracing.enabled:
                self._trace(opened)
            self._decide(opened)
        except Exception:  # a bug must not leave the caller without a reply; it is logged with its traceback
            self._answer_bug(opened)

    def _answer_bug(self, opened: OpenRequest) -> None:
        log.exception("bug: a request could not be decided", extra={"event": Event.BUG})
        if not opened.answered:
            self._finish(opened, Refused(Code.INTERNAL, "the decision could not be made"))

    def _trace(self, opened: OpenRequest) -> None:
        """Begin a span that lasts until the answer; everything that the request causes continues its trace."""
        request = opened.request
        attributes = {"tenant_id": request.tenant_id, "request_id": request.request_id, "policy_id": request.policy_id}
        span = self._tracing.begin("decide", request.correlation.traceparent, attributes)
        if span is not None:
            correlation = replace(request.correlation, traceparent=span.traceparent)
            opened.span, opened.request = span, replace(request, correlation=correlation)

    async def drained(self) -> None:
        """Return when every accepted request has its answer."""
        await self._idle.wait()

    def _decide(self, opened: OpenRequest) -> None:
        request = opened.request
        features = self._features()
        refused = forbidden(request, features, self._settings)
        if refused is not None:
            if refused.code is Code.UNAUTHORIZED:
                self._on_unknown_tenant(request, refused)
            self._finish(opened, refused)
            return
        policies = self._policies.get(request.tenant_id)
        if isinstance(policies, Loading):
            self._policy_wait.begin(opened, None)
            return
        self._decide_under(opened, policies)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _decide_under(self, opened: OpenRequest, policies: TenantPolicies | None) -> None:
        request = opened.request
        stored = None if policies is None else policies.policies.get(request.policy_id)
        if stored is None and policies is not None and self._policies.may_be_outdated(request.tenant_id):
            self._policy_wait.begin(opened, policies)
            return
        if stored is None:
            refused = no_policy(request, policies)
            self._on_unknown_tenant(request, refused)
            self._finish(opened, refused)
            return
        if request.push_assignment:
            closed = self._push_refusal(request.assignment_subject)
            if closed is not None:
                self._finish(opened, closed)
                return
        first_read = self._first_read(request.tenant_id)
        if first_read is not None and not opened.read_figures:
            self._begin(self._decide_after(first_read, opened, policies))
            return
        features = self._features()
        if stored.policy.extended:
            if features.extensions:
                self._begin_extended(opened, stored)
                return
            if (gated := extensions_gated(stored.policy, features)) is not None:
                self._finish(opened, gated)
                return
        request_plan = opened.plan = plan(
            request, stored, features, self._settings.deadlines, self._snapshot(request.tenant_id)
        )
        if request.push_assignment:
            job = encode_job(request, request_plan.first_deadline_ms, max_attempts=request_plan.max_attempts)
            if isinstance(job, Refused):
                self._finish(opened, job)
                return
            opened.job = job
        self._store.decide(request, request_plan, opened.job, partial(self._decided, opened), opened.since)

    async def _decide_after(
        self, first_read: "asyncio.Future[None]", opened: OpenRequest, policies: TenantPolicies | None
    ) -> None:
        """Decide once the tenant's figures have been read for the first time, or after `FIRST_READ_S` without them."""
        opened.read_figures, opened.since = True, opened.started
        until = min(self._loop.time() + FIRST_READ_S, opened.started + self._settings.wait_s)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await asyncio.shield(first_read)
            self._decide_under(opened, policies)
        except Exception:  # as in `handle`
            self._answer_bug(opened)

    def _begin_extended(self, opened: OpenRequest, stored: StoredPolicy) -> None:
        """Run a request with extensions in an asyncio task: it awaits their replies."""
        self._begin(self._extended(opened, stored))

    async def _extended(self, opened: OpenRequest, stored: StoredPolicy) -> None:
        try:
            waited_s = 0.0 if opened.since is None else self._loop.time() - opened.since
            result = await self._extensions.answer(
                opened.request, stored, make_plan=self._plan, read=self._outcomes.read, waited_s=waited_s
            )
            self._finish(opened, result.answer)
            now = self._loop.time()
            self._telemetry.extended_latency.observe(now - opened.started)
            if isinstance(result.answer, Refused) and result.answer.code is Code.SERVICE_OVERLOADED:
                self._overload.shed_at = now
            if (dispatched := result.dispatch) is not None:
                self._dispatch.admitted(dispatched.request, dispatched.plan, dispatched.outcome, dispatched.job)
        except Exception:  # as in `handle`
            self._answer_bug(opened)

    def _plan(self, request: DecideRequest, stored: StoredPolicy) -> Plan:
        return plan(request, stored, self._features(), self._settings.deadlines, self._snapshot(request.tenant_id))

    def _decided(self, opened: OpenRequest, outcome: Outcome, stamp: bytes) -> None:
        try:
            self._conclude(opened, outcome, stamp)
        except Exception:  # as in `handle`
            self._answer_bug(opened)

    def _conclude(self, opened: OpenRequest, outcome: Outcome, stamp: bytes) -> None:
        request, request_plan = opened.request, opened.plan
        if request_plan is None:
            raise AssertionError("a row was decided without a plan")
        if type(outcome) is Admitted and _is_plain(opened, request_plan):
            self._finish_admitted(opened, request_plan, outcome, stamp)
            return
        self._finish(opened, self._outcomes.read(request, request_plan, outcome, stamp))
        if opened.job is not None and isinstance(outcome, Admitted):
            self._dispatch.admitted(request, request_plan, outcome, opened.job)

    def _finish_admitted(self, opened: OpenRequest, request_plan: Plan, outcome: Admitted, stamp: bytes) -> None:
        """Answer a plain request that was admitted, as `_finish` does, without building the answer as objects."""
        request = opened.request
        self._outcomes.admitted(request, request_plan, outcome, stamp)
        data = self._admitted_replies.encode(request, request_plan, outcome)
        self._leave(opened)
        self._telemetry.decisions.decided(outcome.reason, request.tenant_id, self._loop.time() - opened.started)
        if opened.reply is not None:
            opened.reply(data, None)

    def _leave(self, opened: OpenRequest) -> None:
        opened.answered = True
        self._admission.leave(opened.holder)
        if self._admission.in_flight == 0:
            self._idle.set()

    def _finish(self, opened: OpenRequest, answer: Answer) -> None:
        """Answer an accepted request. Only this method and `_finish_admitted` do."""
        request = opened.request
        self._leave(opened)
        self._telemetry.decisions.count(answer, request.tenant_id, self._loop.time() - opened.started)
        self._send_reply(
            opened.reply, opened.protobuf, answer, request.request_id, request.correlation.trace_id, request.warnings
        )
        if opened.span is not None:
            opened.span.end({"outcome": answer.code.value if isinstance(answer, Refused) else "decided"})

    def _send_reply(
        self,
        reply: Reply | None,
        protobuf: bool,
        answer: Answer,
        request_id: str | None,
        trace_id: str | None,
        warnings: Warnings = (),
    ) -> None:
        if reply is None:
            return
        legacy = self._settings.legacy_error_codes
        if protobuf:
            reply(
                *encode_protobuf(
                    answer, request_id=request_id, trace_id=trace_id, legacy_codes=legacy, warnings=warnings
                )
            )
        else:
            data = encode(answer, request_id=request_id, trace_id=trace_id, legacy_codes=legacy, warnings=warnings)
            reply(data, None)


def _is_plain(opened: OpenRequest, request_plan: Plan) -> bool:
    """Whether `AdmittedReplies` can encode the reply of an admitted request."""
    request = opened.request
    return not (
        opened.protobuf
        or request.push_assignment
        or request.options.explain
        or request.warnings
        or request_plan.requires_cp
        or opened.span is not None
    )


def _content_type(headers: Mapping[str, str]) -> str | None:
    return next((v for k, v in headers.items() if k.lower() == "content-type"), None)


async def _caught_up_at_once() -> None:
    """Implements catching up for a transport without a queue in front of the pod."""
