"""Admin acts that name a tenant's levers and policies: bodies in, bodies out, in the name of whoever asked."""

from collections.abc import Awaitable, Callable

import orjson

from router.domain.audit import Actor
from router.domain.decision import Code, Refused
from router.domain.json import JsonObject, JsonValue
from router.domain.policy import DEFAULT_POLICY_ID
from router.domain.roles import Role
from router.domain.view import BreakerView
from router.errors import InvalidInput, Problem, QuotaExceeded, RevisionConflict
from router.usecases.levers import Operator
from router.usecases.paging import page
from router.usecases.publish_policy import PolicyPublisher, Published
from router.wire.problems import Problems

Answer = JsonObject | Refused
Act = Callable[[JsonObject, Actor], Awaitable[Answer]]


class OperatorActs:
    """Levers: seven acts of an operator, and what a viewer may see of them. `operator` makes one for an actor."""

    def __init__(self, operator: Callable[[Actor], Operator]) -> None:
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
        heads, more = page(((h.tenant_id, h) for h in await self._operator(by).tenants()), fields)
        tenants: list[JsonValue] = [
            {"tenant_id": h.tenant_id, "revision": h.revision, "disabled": h.off} for h in heads
        ]
        return {"tenants": tenants, **more}

    async def _providers(self, fields: JsonObject, by: Actor) -> Answer:
        found = await self._operator(by).providers(required(fields, "tenant_id"))
        providers: list[JsonValue] = [
            {
                "provider_id": p.name,
                "policies": list(p.policies),
                "drained": p.drained,
                "breaker": None if p.breaker is None else breaker_facts(p.breaker),
            }
            for p in found.providers
        ]
        return {"tenant_id": found.tenant_id, "disabled": found.off, "providers": providers}

    async def _drain(self, fields: JsonObject, by: Actor) -> Answer:
        return await self._switch_provider(fields, by, on=True)

    async def _enable(self, fields: JsonObject, by: Actor) -> Answer:
        return await self._switch_provider(fields, by, on=False)

    async def _switch_provider(self, fields: JsonObject, by: Actor, *, on: bool) -> Answer:
        tenant, provider, why = required(fields, "tenant_id"), required(fields, "provider_id"), given(fields, "why")
        return {"changed": await self._operator(by).drain(tenant, provider, on=on, why=why)}

    async def _force_open(self, fields: JsonObject, by: Actor) -> Answer:
        tenant, provider, why = required(fields, "tenant_id"), required(fields, "provider_id"), given(fields, "why")
        return {"changed": await self._operator(by).force_open(tenant, provider, why=why)}

    async def _reset(self, fields: JsonObject, by: Actor) -> Answer:
        tenant, provider, why = required(fields, "tenant_id"), required(fields, "provider_id"), given(fields, "why")
        return {"changed": await self._operator(by).reset(tenant, provider, why=why)}

    async def _disable(self, fields: JsonObject, by: Actor) -> Answer:
        return await self._switch(fields, by, on=False)

    async def _enable_tenant(self, fields: JsonObject, by: Actor) -> Answer:
        return await self._switch(fields, by, on=True)

    async def _switch(self, fields: JsonObject, by: Actor, *, on: bool) -> Answer:
        why = given(fields, "why")
        return {"changed": await self._operator(by).switch(required(fields, "tenant_id"), on=on, why=why)}

    async def _forget(self, fields: JsonObject, by: Actor) -> Answer:
        return {
            "changed": await self._operator(by).forget(
                required(fields, "tenant_id"),
                request_id=given(fields, "request_id"),
                idempotency_key=given(fields, "idempotency_key"),
                why=given(fields, "why"),
            )
        }


class PolicyActs:
    """Policies: an admin writes, a viewer reads. `publisher` makes one for an actor."""

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
        records = (await self._publisher(by).list(required(fields, "tenant_id"))).records
        policies: list[JsonValue] = [
            {"policy_id": r.policy_id, "revision": r.revision, "hash": r.hash, "created_ms": r.created_ms}
            for r in records
        ]
        return {"policies": policies}

    async def _get(self, fields: JsonObject, by: Actor) -> Answer:
        tenant, policy_id = required(fields, "tenant_id"), given(fields, "policy_id") or DEFAULT_POLICY_ID
        record = await self._publisher(by).show(tenant, policy_id)
        if record is None:
            return Refused(Code.POLICY_NOT_FOUND, f"tenant {tenant} has no policy {policy_id}")
        document: JsonObject = orjson.loads(record.document)
        return {"policy_id": policy_id, "revision": record.revision, "hash": record.hash, "policy": document}

    async def _upsert(self, fields: JsonObject, by: Actor) -> Answer:
        published = await self._publisher(by).apply(
            required(fields, "tenant_id"),
            given(fields, "policy_id") or DEFAULT_POLICY_ID,
            orjson.dumps(fields.get("policy")),
            expect_revision=_revision(fields),
            dry_run=fields.get("dry_run") is True,
        )
        return _published(published)

    async def _rollback(self, fields: JsonObject, by: Actor) -> Answer:
        revision = _revision(fields, "revision")
        if revision is None:
            raise InvalidInput([Problem("revision", "is missing")])
        published = await self._publisher(by).rollback(
            required(fields, "tenant_id"),
            given(fields, "policy_id") or DEFAULT_POLICY_ID,
            revision,
            expect_revision=_revision(fields),
            dry_run=fields.get("dry_run") is True,
        )
        return _published(published)

    async def _delete(self, fields: JsonObject, by: Actor) -> Answer:
        published = await self._publisher(by).delete(
            required(fields, "tenant_id"),
            required(fields, "policy_id"),
            expect_revision=_revision(fields),
            dry_run=fields.get("dry_run") is True,
        )
        return _published(published)


def breaker_facts(view: BreakerView) -> JsonObject:
    """A breaker in replies; times are Redis ms, null for never."""
    return {
        "state": view.state.value,
        "opened_at_ms": view.opened_at_ms or None,
        "reason": view.why,
        "next_probe_at_ms": view.next_probe_at_ms or None,
    }


def refused_input(fault: InvalidInput | RevisionConflict | QuotaExceeded) -> Refused:
    """What the caller is told of an act that was not done."""
    if isinstance(fault, RevisionConflict):
        return Refused(Code.INVALID_REQUEST, str(fault), {"current_revision": fault.current})
    if isinstance(fault, QuotaExceeded):
        return Refused(Code.QUOTA_EXCEEDED, str(fault))
    found = Problems()
    for problem in fault.problems:
        found.add(problem.path, problem.message, problem.hint)
    return found.rejected(None, None).refused


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


def required(fields: JsonObject, name: str) -> str:
    """A text that the body must have.

    :raises InvalidInput: it is missing, or no text.
    """
    value = given(fields, name)
    if value is None:
        raise InvalidInput([Problem(name, "is missing")])
    return value


def given(fields: JsonObject, name: str) -> str | None:
    """A text that the body may have.

    :raises InvalidInput: it is something else.
    """
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput([Problem(name, "is not a string")])
    return value


def _revision(fields: JsonObject, name: str = "expect_revision") -> int | None:
    value = fields.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InvalidInput([Problem(name, "is not a revision")])
    return value
