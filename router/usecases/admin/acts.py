"""Admin acts on a tenant's levers and policies: request body → reply body, on behalf of an actor."""

from collections.abc import Awaitable, Callable

import orjson

from router.domain.audit import Actor
from router.domain.decision import Code, Refused
from router.domain.json import JsonObject, JsonValue
from router.domain.roles import Role
from router.domain.view import BreakerView
from router.errors import InvalidInput, QuotaExceeded, RevisionConflict
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.overrides import OverrideService
from router.usecases.admin.paging import page
from router.usecases.policies.publish import PolicyPublisher, Published
from router.wire.problems import Problems

Answer = JsonObject | Refused
Act = Callable[[JsonObject, Actor], Awaitable[Answer]]


class OperatorActs:
    """Levers: an operator pulls them, a viewer lists them. `operator` makes the service for an actor."""

    def __init__(self, operator: Callable[[Actor], OverrideService]) -> None:
        self._operator = operator
        self.acts: dict[str, tuple[Role, Act]] = {
            "list_tenants": (Role.VIEWER, self._tenants),
            "list_providers": (Role.VIEWER, self._providers),
            "drain_provider": (Role.OPERATOR, self._drain),
            "enable_provider": (Role.OPERATOR, self._enable),
            "force_open_breaker": (Role.OPERATOR, self._force_open),
            "reset_breaker": (Role.OPERATOR, self._reset),
            "disable_tenant": (Role.OPERATOR, self._disable),
            "enable_tenant": (Role.OPERATOR, self._enable_tenant),
            "forget_idempotency_key": (Role.OPERATOR, self._forget),
        }

    async def _tenants(self, fields: JsonObject, by: Actor) -> Answer:
        heads, paging = page(((h.tenant_id, h) for h in await self._operator(by).tenants()), fields)
        tenants: list[JsonValue] = [
            {"tenant_id": h.tenant_id, "revision": h.revision, "disabled": h.off} for h in heads
        ]
        return {"tenants": tenants, **paging}

    async def _providers(self, fields: JsonObject, by: Actor) -> Answer:
        body = ActFields(fields)
        tenant = body.tenant()
        body.check()
        tenant_providers = await self._operator(by).providers(tenant)
        providers: list[JsonValue] = [
            {
                "provider_id": p.name,
                "policies": list(p.policies),
                "drained": p.drained,
                "breaker": None if p.breaker is None else breaker_facts(p.breaker),
            }
            for p in tenant_providers.providers
        ]
        return {"tenant_id": tenant_providers.tenant_id, "disabled": tenant_providers.off, "providers": providers}

    async def _drain(self, fields: JsonObject, by: Actor) -> Answer:
        return await self._switch_provider(fields, by, on=True)

    async def _enable(self, fields: JsonObject, by: Actor) -> Answer:
        return await self._switch_provider(fields, by, on=False)

    async def _switch_provider(self, fields: JsonObject, by: Actor, *, on: bool) -> Answer:
        tenant, provider, why = _lever(fields)
        return {"changed": await self._operator(by).drain(tenant, provider, on=on, why=why)}

    async def _force_open(self, fields: JsonObject, by: Actor) -> Answer:
        tenant, provider, why = _lever(fields)
        return {"changed": await self._operator(by).force_open(tenant, provider, why=why)}

    async def _reset(self, fields: JsonObject, by: Actor) -> Answer:
        tenant, provider, why = _lever(fields)
        return {"changed": await self._operator(by).reset(tenant, provider, why=why)}

    async def _disable(self, fields: JsonObject, by: Actor) -> Answer:
        return await self._switch(fields, by, on=False)

    async def _enable_tenant(self, fields: JsonObject, by: Actor) -> Answer:
        return await self._switch(fields, by, on=True)

    async def _switch(self, fields: JsonObject, by: Actor, *, on: bool) -> Answer:
        body = ActFields(fields)
        tenant, why = body.tenant(), body.text("why")
        body.check()
        return {"changed": await self._operator(by).switch(tenant, on=on, why=why)}

    async def _forget(self, fields: JsonObject, by: Actor) -> Answer:
        body = ActFields(fields)
        tenant, why = body.tenant(), body.text("why")
        request_id, key = body.text("request_id"), body.text("idempotency_key")
        body.check()
        operator = self._operator(by)
        return {"changed": await operator.forget(tenant, request_id=request_id, idempotency_key=key, why=why)}


class PolicyActs:
    """Policies: an admin writes them, a viewer reads them. `publisher` makes the publisher for an actor."""

    def __init__(self, publisher: Callable[[Actor], PolicyPublisher]) -> None:
        self._publisher = publisher
        self.acts: dict[str, tuple[Role, Act]] = {
            "list_policies": (Role.VIEWER, self._list),
            "get_policy": (Role.VIEWER, self._get),
            "upsert_policy": (Role.ADMIN, self._upsert),
            "delete_policy": (Role.ADMIN, self._delete),
            "rollback_policy": (Role.ADMIN, self._rollback),
        }

    async def _list(self, fields: JsonObject, by: Actor) -> Answer:
        body = ActFields(fields)
        tenant = body.tenant()
        body.check()
        records = (await self._publisher(by).list(tenant)).records
        policies: list[JsonValue] = [
            {"policy_id": r.policy_id, "revision": r.revision, "hash": r.hash, "created_ms": r.created_ms}
            for r in records
        ]
        return {"policies": policies}

    async def _get(self, fields: JsonObject, by: Actor) -> Answer:
        body = ActFields(fields)
        tenant, policy_id = body.tenant(), body.policy()
        body.check()
        record = await self._publisher(by).show(tenant, policy_id)
        if record is None:
            return Refused(Code.POLICY_NOT_FOUND, f"tenant {tenant} has no policy {policy_id}")
        document: JsonObject = orjson.loads(record.document)
        return {"policy_id": policy_id, "revision": record.revision, "hash": record.hash, "policy": document}

    async def _upsert(self, fields: JsonObject, by: Actor) -> Answer:
        body = ActFields(fields)
        tenant, policy_id, policy = body.tenant(), body.policy(), orjson.dumps(body.document("policy"))
        expect, dry_run = body.revision(), body.flag("dry_run")
        body.check()
        publisher = self._publisher(by)
        return _published(await publisher.apply(tenant, policy_id, policy, expect_revision=expect, dry_run=dry_run))

    async def _rollback(self, fields: JsonObject, by: Actor) -> Answer:
        body = ActFields(fields)
        tenant, policy_id, revision = body.tenant(), body.policy(), body.required_revision("revision")
        expect, dry_run = body.revision(), body.flag("dry_run")
        body.check()
        publisher = self._publisher(by)
        return _published(
            await publisher.rollback(tenant, policy_id, revision, expect_revision=expect, dry_run=dry_run)
        )

    async def _delete(self, fields: JsonObject, by: Actor) -> Answer:
        body = ActFields(fields)
        tenant, policy_id = body.tenant(), body.required_policy()
        expect, dry_run = body.revision(), body.flag("dry_run")
        body.check()
        publisher = self._publisher(by)
        return _published(await publisher.delete(tenant, policy_id, expect_revision=expect, dry_run=dry_run))


def breaker_facts(view: BreakerView) -> JsonObject:
    """A breaker as reply fields; times are Redis ms, null for never."""
    return {
        "state": view.state.value,
        "opened_at_ms": view.opened_at_ms or None,
        "reason": view.why,
        "next_probe_at_ms": view.next_probe_at_ms or None,
    }


def refused_input(fault: InvalidInput | RevisionConflict | QuotaExceeded) -> Refused:
    """The refusal of an act that failed, as the caller gets it."""
    if isinstance(fault, RevisionConflict):
        return Refused(Code.INVALID_REQUEST, str(fault), {"current_revision": fault.current})
    if isinstance(fault, QuotaExceeded):
        return Refused(Code.QUOTA_EXCEEDED, str(fault))
    problems = Problems()
    for problem in fault.problems:
        problems.add(problem.path, problem.message, problem.hint)
    return problems.rejected(None, None).refused


def _published(published: Published) -> JsonObject:
    return {
        "policy_id": published.policy_id,
        "revision": published.revision,
        "hash": published.hash,
        "changed": published.changed,
        "dry_run": published.dry_run,
        "changes": [str(c) for c in published.changes],
        "warnings": [str(w) for w in published.warnings],
    }


def _lever(fields: JsonObject) -> tuple[str, str, str | None]:
    """Tenant, provider and reason of a lever act."""
    body = ActFields(fields)
    lever = body.tenant(), body.required_text("provider_id"), body.text("why")
    body.check()
    return lever
