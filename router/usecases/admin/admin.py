"""The admin surface over NATS: check the token, run an act of `acts.ACTS`, record the use of the token.

Acts of viewers only read. They are bounded, and equal reads over all tenants share one answer (`usecases.admin.reads`).

Acts answer from shared state, so every pod gives the same answer. Read access: if ROUTER_ADMIN_NATS_READ is `open`, the
acts that may be open need no token. Every other act that reads needs a token, of any role.
"""

import logging
import time
from collections.abc import Callable, Mapping

import orjson
from msgspec import Struct

from router.domain.audit.records import Actor
from router.domain.decide.decision import Code, Refused
from router.domain.json import JsonObject
from router.domain.roles import Holder, Role
from router.errors import InvalidInput, QuotaExceeded, RevisionConflict, StoreError
from router.log_throttle import LogThrottle
from router.ports.bus import Reply
from router.ports.policies import LeverStore
from router.telemetry import Event, Telemetry
from router.usecases.admin.access import AdminTokens
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.act_replies import refused_input
from router.usecases.admin.acts import ACTS
from router.usecases.admin.acts.act import AdminServices, Answer
from router.usecases.admin.reads import Reads, TooManyReads
from router.usecases.messages.input_defects import InputDefects
from router.wire.admin import AdminRequest, decode_admin, encode_admin
from router.wire.fields import identifier
from router.wire.problems import Problems, Rejected
from router.wire.reply import encode
from router.wire.subjects import ADMIN

log = logging.getLogger(__name__)

# Only open acts run without a token, and these write nothing.
_ANONYMOUS = Actor(principal="anonymous")


class Answered(Struct, frozen=True):
    """An answer and the body of its reply."""

    answer: Answer
    body: bytes


class Admin:
    """Serves `beamline.router.v1.admin.<act>`.

    Every use of a valid token, allowed or refused, is logged, counted and recorded in the audit log of no tenant. An
    act records its own changes. `on_wrong_token` is called for each refusal of an unknown token; refusals without a
    token are counted, and logged once a minute. `legacy_codes` is ROUTER_LEGACY_ERROR_CODES.
    """

    def __init__(
        self,
        services: AdminServices,
        tokens: AdminTokens,
        levers: LeverStore,
        telemetry: Telemetry,
        *,
        reads: Reads[Answered],
        on_wrong_token: Callable[[], None] = lambda: None,
        legacy_codes: bool = False,
    ) -> None:
        self._services = services
        self._reads = reads
        self._tokens = tokens
        self._levers = levers
        self._telemetry = telemetry
        self._on_wrong_token = on_wrong_token
        self._throttle = LogThrottle(time.monotonic)
        self._defects = InputDefects(telemetry, "admin act")
        self._legacy_codes = legacy_codes

    async def __call__(self, data: bytes, headers: Mapping[str, str], subject: str) -> Reply:
        """Execute one act and reply with its answer or refusal."""
        request = decode_admin(data, headers)
        if isinstance(request, Rejected):
            return self._refusal(request.refused)
        name = subject.removeprefix(f"{ADMIN}.")
        self._defects.count(request.warnings)
        holder = self._tokens.holder(request.token)
        refused = self._forbidden(name, holder)
        answered = self._answered(refused) if refused is not None else await self._bounded(name, request, holder)
        await self._record_use(name, request, holder, answer=answered.answer, forbidden=refused is not None)
        return answered.body, {}

    async def _bounded(self, name: str, request: AdminRequest, holder: Holder | None) -> Answered:
        """Execute the act. Reads are bounded, and a read over all tenants is shared."""

        async def execute() -> Answered:
            return self._answered(await self._execute(name, request, holder))

        act = ACTS.get(name)
        if act is None or act.role is not Role.VIEWER:
            return await execute()
        shared_as = None
        if request.fields.get("tenant_id") is None:
            fields = orjson.dumps(request.fields, option=orjson.OPT_SORT_KEYS)
            shared_as = name, None if holder is None else holder.role, fields
        try:
            return await self._reads.run(execute, shared_as=shared_as)
        except TooManyReads as fault:
            details: JsonObject = {"retry_after_ms": fault.retry_after_ms}
            return self._answered(Refused(Code.SERVICE_OVERLOADED, "too many administrative reads", details))

    def _answered(self, answer: Answer) -> Answered:
        body = self._refusal(answer)[0] if isinstance(answer, Refused) else encode_admin(answer)
        return Answered(answer, body)

    def _refusal(self, refused: Refused) -> Reply:
        return encode(refused, request_id=None, trace_id=None, legacy_codes=self._legacy_codes), {}

    def _forbidden(self, name: str, holder: Holder | None) -> Refused | None:
        act = ACTS.get(name)
        if act is None:
            return self._tokens.refusal(holder, Role.VIEWER, may_be_open=True)
        return self._tokens.refusal(holder, act.role, may_be_open=act.may_be_open)

    async def _execute(self, name: str, request: AdminRequest, holder: Holder | None) -> Answer:
        act = ACTS.get(name)
        if act is None:
            return Refused(Code.INVALID_REQUEST, f"unknown admin act: there are {', '.join(ACTS)}")
        by = _ANONYMOUS if holder is None else _actor(holder, request)
        try:
            return await act.run(self._services, ActFields(request.fields, act.fields), by)
        except (InvalidInput, QuotaExceeded, RevisionConflict) as fault:
            return refused_input(fault)
        except StoreError:
            return Refused(Code.UNAVAILABLE, "the store is unavailable", {"retry_after_ms": 500})

    async def _record_use(
        self, name: str, request: AdminRequest, holder: Holder | None, *, answer: Answer, forbidden: bool
    ) -> None:
        act = name if name in ACTS else "unknown"
        outcome = "forbidden" if forbidden else answer.code.value if isinstance(answer, Refused) else "done"
        self._telemetry.admin_acts.labels(act, outcome).inc()
        if holder is None:
            if forbidden:
                self._refused_unknown(act, request)
            return
        tenant_id = identifier(Problems(), "tenant_id", request.fields.get("tenant_id"))
        facts = {"principal": holder.principal, "role": holder.role.label, "tenant_id": tenant_id, "outcome": outcome}
        event = Event.ADMIN_REFUSED if forbidden else Event.ADMIN_ACT
        log.info("admin act %s: %s", act, outcome, extra={"event": event, **facts})
        try:
            await self._levers.role_used(_actor(holder, request), act, tenant_id, outcome)
        except StoreError as fault:
            log.error("admin act missing in the audit log: %s", fault, extra={"event": Event.ADMIN_ACT, **facts})

    def _refused_unknown(self, act: str, request: AdminRequest) -> None:
        """Report a refusal of an unknown caller; the log has at most one line a minute."""
        if request.token is not None:
            self._on_wrong_token()
        elif (suppressed := self._throttle.due()) is not None:
            log.warning(
                "admin act %s refused: no token", act, extra={"event": Event.ADMIN_REFUSED, "unsaid": suppressed}
            )


def _actor(holder: Holder, request: AdminRequest) -> Actor:
    return Actor(principal=holder.principal, role=holder.role.label, trace_id=request.trace_id)
