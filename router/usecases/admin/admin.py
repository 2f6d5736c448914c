"""Admin acts over NATS, answered from shared state, so that every pod gives the same answer.

Read access: everybody if ROUTER_ADMIN_NATS_READ is `open`, else every holder of a token, whatever its role.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

from router.domain.audit import Actor
from router.domain.decision import Code, Refused
from router.domain.extension_health import ExtensionRecord
from router.domain.extensions import worst_latency_ms
from router.domain.json import JsonObject, JsonValue
from router.domain.policy.model import Policy, StoredPolicy, provider_entry
from router.domain.roles import Holder, Role
from router.domain.view import BreakerView
from router.errors import InvalidInput, QuotaExceeded, RevisionConflict, StoreError
from router.ports.extensions import ExtensionStore
from router.ports.policies import LeverStore, Policies
from router.ports.tenants import Inspector
from router.telemetry import Event, Telemetry
from router.usecases.admin.access import Tokens
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.acts import Act, breaker_facts, refused_input
from router.usecases.admin.overrides import named_providers
from router.usecases.admin.paging import page
from router.usecases.decide.dry_run import DryRunner
from router.usecases.policies.lookups import policies_of
from router.wire.extension_views import extension_health, extension_state
from router.wire.fields import name as tenant_name
from router.wire.problems import Problems, Rejected
from router.wire.reply import decision_object, encode
from router.wire.status import AdminRequest, decode_admin, decode_dry_run, encode_admin
from router.wire.subjects import ADMIN

Answered = tuple[bytes, Mapping[str, str]]
Reading = Callable[[JsonObject], Awaitable[JsonObject | Refused]]

log = logging.getLogger(__name__)

_LIMITS: JsonObject = {"max_total": 10, "max_pre": 5, "max_validators": 5, "max_post": 5}
_MEDIUM, _HIGH = 4, 8


class Admin:
    """Serves `beamline.router.v1.admin.<act>`.

    `token_acts` are the acts that always need a token, each with its role; the four other acts only read. Every use of
    a token, allowed or refused, is logged, counted and recorded in the audit log of no tenant. An act records its own
    changes. `legacy_codes` is ROUTER_LEGACY_ERROR_CODES.
    """

    def __init__(
        self,
        policies: Policies,
        inspector: Inspector,
        extensions: ExtensionStore,
        dry_run: DryRunner,
        tokens: Tokens,
        levers: LeverStore,
        telemetry: Telemetry,
        token_acts: Mapping[str, tuple[Role, Act]],
        *,
        legacy_codes: bool = False,
    ) -> None:
        self._policies = policies
        self._inspector = inspector
        self._extensions = extensions
        self._dry_runner = dry_run
        self._tokens = tokens
        self._levers = levers
        self._telemetry = telemetry
        self._readings: dict[str, Reading] = {
            "get_circuit_breaker_states": self._breaker_states,
            "get_extension_health": self._extension_health,
            "dry_run_pipeline": self._dry_run,
            "get_pipeline_complexity": self._complexity,
        }
        self._token_acts = token_acts
        self._legacy_codes = legacy_codes

    async def __call__(self, data: bytes, headers: Mapping[str, str], subject: str) -> Answered:
        """Execute one act and reply with its answer or refusal."""
        admin_request = decode_admin(data, headers)
        if isinstance(admin_request, Rejected):
            return self._refusal(admin_request.refused)
        act = subject.removeprefix(f"{ADMIN}.")
        holder = self._tokens.holder(admin_request.token)
        refused = self._forbidden(act, holder)
        answer = refused or await self._execute(act, admin_request, holder)
        await self._record_use(act, admin_request, holder, answer, forbidden=refused is not None)
        return self._refusal(answer) if isinstance(answer, Refused) else (encode_admin(answer), {})

    def _refusal(self, refused: Refused) -> Answered:
        return encode(refused, request_id=None, trace_id=None, legacy_codes=self._legacy_codes), {}

    def _forbidden(self, act: str, holder: Holder | None) -> Refused | None:
        needed = self._token_acts[act][0] if act in self._token_acts else Role.VIEWER
        return self._tokens.refusal(holder, needed, may_be_open=act not in self._token_acts)

    async def _execute(self, act: str, admin_request: AdminRequest, holder: Holder | None) -> JsonObject | Refused:
        try:
            if act in self._readings:
                return await self._readings[act](admin_request.fields)
            if act in self._token_acts and holder is not None:
                return await self._token_acts[act][1](admin_request.fields, _actor(holder, admin_request))
        except (InvalidInput, QuotaExceeded, RevisionConflict) as fault:
            return refused_input(fault)
        except StoreError:
            return Refused(Code.UNAVAILABLE, "the store is unavailable", {"retry_after_ms": 500})
        known_acts = ", ".join((*self._readings, *self._token_acts))
        return Refused(Code.INVALID_REQUEST, f"unknown admin act: there are {known_acts}")

    async def _record_use(
        self,
        act: str,
        admin_request: AdminRequest,
        holder: Holder | None,
        answer: JsonObject | Refused,
        *,
        forbidden: bool,
    ) -> None:
        name = act if act in self._readings or act in self._token_acts else "unknown"
        outcome = "forbidden" if forbidden else answer.code.value if isinstance(answer, Refused) else "done"
        self._telemetry.admin_acts.labels(name, outcome).inc()
        if holder is None:
            if forbidden:
                log.warning("admin act %s refused: no valid token", name, extra={"event": Event.ADMIN_REFUSED})
            return
        tenant_id = tenant_name(Problems(), "tenant_id", admin_request.fields.get("tenant_id"))
        facts = {"principal": holder.principal, "role": holder.role.label, "tenant_id": tenant_id, "outcome": outcome}
        event = Event.ADMIN_REFUSED if forbidden else Event.ADMIN_ACT
        log.info("admin act %s: %s", name, outcome, extra={"event": event, **facts})
        try:
            await self._levers.role_used(_actor(holder, admin_request), name, tenant_id, outcome)
        except StoreError as fault:
            log.error("admin act missing in the audit log: %s", fault, extra={"event": Event.ADMIN_ACT, **facts})

    async def _breaker_states(self, fields: JsonObject) -> JsonObject | Refused:
        body = ActFields(fields)
        tenant = body.optional_tenant()
        body.check()
        breakers: list[tuple[str, BreakerView | ExtensionRecord]] = [
            (f"{v.tenant_id}/{v.provider_entry.hex()}", v) for v in await self._inspector.breakers(tenant)
        ]
        if tenant is None:
            records = await self._extensions.records()
            # "~" is in no tenant's name and sorts after all of them.
            breakers += [(f"~/{r.name.text}", r) for r in records if r.opened_at_ms]
        shown, paging = page(breakers, fields)
        names = {t: await self._names_of(t) for t in {v.tenant_id for v in shown if isinstance(v, BreakerView)}}
        states: list[JsonValue] = [
            _state(view, names[view.tenant_id]) if isinstance(view, BreakerView) else extension_state(view)
            for view in shown
        ]
        return {"states": states, **paging}

    async def _names_of(self, tenant_id: str) -> dict[bytes, str]:
        return {provider_entry(n): n for n in named_providers(await policies_of(self._policies, tenant_id))}

    async def _extension_health(self, fields: JsonObject) -> JsonObject | Refused:
        """Report every extension called within a day, or only the one that `extension_id` names."""
        body = ActFields(fields)
        extension_id = body.text("extension_id")
        body.check()
        records = [r for r in await self._extensions.records() if extension_id is None or r.name.id == extension_id]
        if extension_id is not None and not records:
            return Refused(Code.EXTENSION_NOT_FOUND, f"no extension {extension_id} was called within a day")
        return {"health": extension_health(records)}

    async def _stored(self, fields: JsonObject) -> StoredPolicy | Refused:
        body = ActFields(fields)
        tenant, policy_id = body.tenant(), body.policy()
        body.check()
        policies = await policies_of(self._policies, tenant)
        if policies is not None and policy_id not in policies.policies and self._policies.doubtful(tenant):
            policies = await self._policies.load(tenant)
        stored = None if policies is None else policies.policies.get(policy_id)
        if stored is None:
            return Refused(Code.POLICY_NOT_FOUND, f"tenant {tenant} has no policy {policy_id}")
        return stored

    async def _dry_run(self, fields: JsonObject) -> JsonObject | Refused:
        """Answer a request as a decide would now, by the same plan and script. Charges nothing."""
        stored = await self._stored(fields)
        if isinstance(stored, Refused):
            return stored
        request = decode_dry_run(fields)
        if isinstance(request, Rejected):
            return request.refused
        answer = await self._dry_runner(request, stored)
        if isinstance(answer, Refused):
            return answer
        decision = decision_object(answer.decision)
        return {
            "result": {
                "decision": {k: decision[k] for k in ("provider_id", "reason", "priority")},
                "executed_extensions": [],
                "final_payload": request.payload,
                "explain": dict(answer.decision.metadata) if answer.explain is None else answer.explain,
            }
        }

    async def _complexity(self, fields: JsonObject) -> JsonObject | Refused:
        stored = await self._stored(fields)
        return stored if isinstance(stored, Refused) else _complexity(stored.policy)


def _state(view: BreakerView, names: Mapping[bytes, str]) -> JsonObject:
    return {
        "tenant_id": view.tenant_id,
        "provider_id": names.get(view.provider_entry, view.provider_entry.hex()),
        **breaker_facts(view),
    }


def _complexity(policy: Policy) -> JsonObject:
    """Score: one per step, plus one per step that may refuse the request. Latency: every first call times out."""
    steps = (*policy.pre, *policy.validators, *policy.post)
    blocking = sum(1 for e in policy.pre if e.required) + sum(1 for e in policy.validators if e.on_fail == "block")
    score = len(steps) + blocking
    level = "high" if score >= _HIGH else "medium" if score >= _MEDIUM else "low"
    warnings: list[JsonValue] = []
    if level == "high":
        warnings.append("each step adds its time to the answer")
    recommendations: list[JsonValue] = ["merge steps, or make some optional"] if level == "high" else []
    return {
        "total_extensions": len(steps),
        "pre_count": len(policy.pre),
        "validators_count": len(policy.validators),
        "post_count": len(policy.post),
        "complexity_score": score,
        "complexity_level": level,
        "estimated_latency_ms": worst_latency_ms(policy),
        "recommended_limits": _LIMITS,
        "warnings": warnings,
        "recommendations": recommendations,
    }


def _actor(holder: Holder, admin_request: AdminRequest) -> Actor:
    return Actor(holder.principal, holder.role.label, admin_request.trace_id)
