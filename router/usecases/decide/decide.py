"""One request, from its bytes to its reply.

    bytes → wire.decode → gate, tenant, policy (in process) → domain.plan → store.decide → reply (→ dispatch)

No task per request: all but loading an uncached policy, and a policy's extensions (`usecases.extensions.flow`), runs in
callbacks, and everyone gets one reply.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from router.domain.answers import overloaded
from router.domain.decision import Answer, Code, Refused
from router.domain.figures import NO_FIGURES, Snapshot
from router.domain.outcome import Admitted, Outcome
from router.domain.plan import Features, Plan, plan
from router.domain.policy.model import StoredPolicy, TenantPolicies
from router.domain.request import DecideRequest
from router.errors import StoreError
from router.ports.decisions import DecisionStore
from router.ports.extensions import Extensions, OutcomeReader
from router.ports.policies import Loading, Policies
from router.ports.tasks import Dispatch
from router.telemetry import Event, Telemetry
from router.tracing import Span, Tracing
from router.usecases.decide.intake import DecideSettings, extensions_gated, forbidden, no_policy, store_away
from router.wire.decide import decode
from router.wire.job import encode_job
from router.wire.problems import Rejected
from router.wire.reply import encode, encode_protobuf
from router.wire.route_request import is_protobuf

log = logging.getLogger("router.decide")

Reply = Callable[[bytes, Mapping[str, str] | None], None]


class Open(Struct):
    """A request that has no answer yet."""

    request: DecideRequest
    protobuf: bool
    reply: Reply | None
    started: float
    span: Span | None = None
    plan: Plan | None = None
    job: bytes | None = None
    answered: bool = False


class Decide:
    """Answers decide requests; `handle` is what a door calls."""

    def __init__(
        self,
        store: DecisionStore,
        policies: Policies,
        features: Callable[[], Features],
        dispatch: Dispatch,
        telemetry: Telemetry,
        settings: DecideSettings,
        *,
        read: OutcomeReader,
        tracing: Tracing,
        extensions: Extensions,
        snapshot: Callable[[str], Snapshot] = lambda _: NO_FIGURES,
        unknown: Callable[[DecideRequest, Refused], None] = lambda _request, _refused: None,
        violated: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._policies = policies
        self._features = features
        self._dispatch = dispatch
        self._telemetry = telemetry
        self._settings = settings
        self._read = read
        self._tracing = tracing
        self._extensions = extensions
        self._snapshot = snapshot
        self._unknown = unknown
        self._violated = violated
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.in_flight = 0

    def handle(
        self, data: bytes, headers: Mapping[str, str] | None, subject_tenant: str | None, reply: Reply | None
    ) -> None:
        """Take one request; `reply` is called once. Without one, only a request that pushes is decided."""
        protobuf = headers is not None and is_protobuf(_content_type(headers))
        if self.in_flight >= self._settings.max_in_flight:
            self._telemetry.shed.inc()
            self._tell(reply, protobuf, overloaded(self.in_flight), None, None)
            return
        started = self._loop.time()
        request = decode(
            data,
            headers,
            subject_tenant,
            strict=self._settings.strict_correlation,
            result_prefixes=self._settings.result_subject_prefixes,
            longest_deadline_ms=self._settings.deadline_max_ms,
        )
        if isinstance(request, Rejected):
            self._telemetry.decisions.count(request.refused, "", self._loop.time() - started)
            if request.refused.code is Code.UNAUTHORIZED:
                # Subject, header and body name different tenants.
                self._violated()
            self._tell(reply, protobuf, request.refused, request.request_id, request.trace_id)
            return
        if reply is None and not request.push_assignment:
            return
        if self.in_flight == 0:
            self._idle.clear()
        self.in_flight += 1
        opened = Open(request, protobuf, reply, started)
        try:
            if self._tracing.enabled:
                self._trace(opened)
            self._decide(opened)
        except Exception:  # the caller must not wait in vain; the bug is logged whole
            self._broke(opened)

    def _broke(self, opened: Open) -> None:
        log.exception("a request could not be decided", extra={"event": Event.BUG})
        if not opened.answered:
            self._finish(opened, Refused(Code.INTERNAL, "the decision could not be made"))

    def _trace(self, opened: Open) -> None:
        """A span from arrival to answer; whatever the request causes continues it."""
        request = opened.request
        attributes = {"tenant_id": request.tenant_id, "request_id": request.request_id, "policy_id": request.policy_id}
        span = self._tracing.begin("decide", request.correlation.traceparent, attributes)
        if span is not None:
            correlation = replace(request.correlation, traceparent=span.traceparent)
            opened.span, opened.request = span, replace(request, correlation=correlation)

    async def drained(self) -> None:
        """Returns when every request that was taken has its answer."""
        await self._idle.wait()

    def _decide(self, opened: Open) -> None:
        request = opened.request
        features = self._features()
        refused = forbidden(request, features, self._settings)
        if refused is not None:
            if refused.code is Code.UNAUTHORIZED:
                self._unknown(request, refused)
            self._finish(opened, refused)
            return
        known = self._policies.get(request.tenant_id)
        if isinstance(known, Loading):
            self._begin_load(opened, None)
            return
        self._decide_under(opened, known)

    def _begin_load(self, opened: Open, last_good: TenantPolicies | None) -> None:
        task = self._loop.create_task(self._load(opened, last_good))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, opened: Open, last_good: TenantPolicies | None) -> None:
        try:
            self._decide_under(opened, await self._policies.load(opened.request.tenant_id))
        except StoreError:
            request = opened.request
            self._finish(opened, store_away(request) if last_good is None else no_policy(request, last_good))
        except Exception:  # as in `handle`
            self._broke(opened)

    def _decide_under(self, opened: Open, known: TenantPolicies | None) -> None:
        request = opened.request
        stored = None if known is None else known.policies.get(request.policy_id)
        if stored is None and known is not None and self._policies.doubtful(request.tenant_id):
            self._begin_load(opened, known)
            return
        if stored is None:
            refused = no_policy(request, known)
            self._unknown(request, refused)
            self._finish(opened, refused)
            return
        features = self._features()
        if stored.policy.extended:
            if features.extensions:
                self._begin_extended(opened, stored)
                return
            if (gated := extensions_gated(stored.policy, features)) is not None:
                self._finish(opened, gated)
                return
        made = opened.plan = plan(
            request, stored, features, self._settings.deadlines, self._snapshot(request.tenant_id)
        )
        if request.push_assignment:
            job = encode_job(request, made.first_deadline_ms, max_attempts=made.max_attempts)
            if isinstance(job, Refused):
                self._finish(opened, job)
                return
            opened.job = job
        self._store.decide(request, made, opened.job, partial(self._decided, opened))

    def _begin_extended(self, opened: Open, stored: StoredPolicy) -> None:
        """The one way that takes a task: a request that its policy sends to extensions."""
        task = self._loop.create_task(self._extended(opened, stored))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _extended(self, opened: Open, stored: StoredPolicy) -> None:
        try:
            course = await self._extensions.answer(opened.request, stored, self._plan, self._read)
            self._finish(opened, course.answer)
            if (ready := course.dispatch) is not None:
                self._dispatch.admitted(ready.request, ready.plan, ready.outcome, ready.job)
        except Exception:  # as in `handle`
            self._broke(opened)

    def _plan(self, request: DecideRequest, stored: StoredPolicy) -> Plan:
        return plan(request, stored, self._features(), self._settings.deadlines, self._snapshot(request.tenant_id))

    def _decided(self, opened: Open, outcome: Outcome, stamp: bytes) -> None:
        try:
            self._conclude(opened, outcome, stamp)
        except Exception:  # as in `handle`
            self._broke(opened)

    def _conclude(self, opened: Open, outcome: Outcome, stamp: bytes) -> None:
        request, made = opened.request, opened.plan
        if made is None:
            raise AssertionError("decided before it was planned")
        self._finish(opened, self._read(request, made, outcome, stamp))
        if opened.job is not None and isinstance(outcome, Admitted):
            self._dispatch.admitted(request, made, outcome, opened.job)

    def _finish(self, opened: Open, found: Answer) -> None:
        """The one place where a request that was taken gets its answer."""
        request = opened.request
        opened.answered = True
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()
        self._telemetry.decisions.count(found, request.tenant_id, self._loop.time() - opened.started)
        self._tell(opened.reply, opened.protobuf, found, request.request_id, request.correlation.trace_id)
        if opened.span is not None:
            opened.span.end({"outcome": found.code.value if isinstance(found, Refused) else "decided"})

    def _tell(
        self, reply: Reply | None, protobuf: bool, found: Answer, request_id: str | None, trace_id: str | None
    ) -> None:
        if reply is None:
            return
        legacy = self._settings.legacy_error_codes
        if protobuf:
            reply(*encode_protobuf(found, request_id=request_id, trace_id=trace_id, legacy_codes=legacy))
        else:
            reply(encode(found, request_id=request_id, trace_id=trace_id, legacy_codes=legacy), None)


def _content_type(headers: Mapping[str, str]) -> str | None:
    return next((v for k, v in headers.items() if k.lower() == "content-type"), None)
