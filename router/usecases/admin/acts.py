"""All admin acts: the table `ACTS` at the end names each act, the role it needs, its fields and its function.

To add an act, write its function here and add its row. Everything else follows from the row: the token check, the
audit record of its use, its metric label, and its line in docs/REFERENCE.md (the first line of its docstring).

A function reads its fields from the body, checks all of them at once, and returns the reply. It may raise what its use
cases raise; `Admin` turns these errors into refusals.
"""

from collections.abc import Awaitable, Callable

import orjson
from msgspec import Struct

from router.domain.audit import Actor
from router.domain.decision import Code, Refused
from router.domain.extension_health import ExtensionRecord
from router.domain.json import JsonObject, JsonValue
from router.domain.levers import BreakerView
from router.domain.policy.model import StoredPolicy, provider_entry
from router.domain.roles import Role
from router.ports.extensions import ExtensionStore
from router.ports.policies import Policies
from router.ports.tenants import Inspector, TenantStore
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.act_replies import (
    census_facts,
    complexity_facts,
    named_breaker_facts,
    provider_facts,
    published_facts,
    purged_facts,
)
from router.usecases.admin.overrides import OverrideService, named_providers
from router.usecases.admin.paging import page
from router.usecases.admin.purge import Purger
from router.usecases.decide.dry_run import DryRunner
from router.usecases.policies.lookups import policies_of
from router.usecases.policies.publish import PolicyPublisher
from router.wire.admin import decode_dry_run
from router.wire.extension_views import extension_health, extension_state
from router.wire.problems import Rejected
from router.wire.reply import decision_object

Answer = JsonObject | Refused


class AdminServices(Struct, frozen=True):
    """What acts use. `overrides`, `publisher` and `purger` return a service that acts on behalf of an actor."""

    policies: Policies
    inspector: Inspector
    extensions: ExtensionStore
    tenants: TenantStore
    dry_run: DryRunner
    overrides: Callable[[Actor], OverrideService]
    publisher: Callable[[Actor], PolicyPublisher]
    purger: Callable[[Actor], Purger]


class Act(Struct, frozen=True):
    """One admin act. `fields` are the body's fields; `run` may read no others.

    `may_be_open`: the act only reads, and needs no token if ROUTER_ADMIN_NATS_READ is `open`.
    """

    name: str
    role: Role
    fields: tuple[str, ...]
    run: Callable[[AdminServices, ActFields, Actor], Awaitable[Answer]]
    may_be_open: bool = False


async def _breaker_states(services: AdminServices, body: ActFields, _by: Actor) -> Answer:
    """List breakers of providers, and without a tenant of extensions too, in pages."""
    tenant = body.optional_tenant()
    cursor, limit = body.cursor(), body.limit()
    body.check()
    breakers: list[tuple[str, BreakerView | ExtensionRecord]] = [
        (f"{v.tenant_id}/{v.provider_entry.hex()}", v) for v in await services.inspector.breakers(tenant)
    ]
    if tenant is None:
        records = await services.extensions.records()
        # "~" is in no tenant's name and sorts after all of them.
        breakers += [(f"~/{r.name.text}", r) for r in records if r.opened_at_ms]
    shown, paging = page(breakers, cursor, limit)
    names = {t: await _provider_names(services, t) for t in {v.tenant_id for v in shown if isinstance(v, BreakerView)}}
    states: list[JsonValue] = [
        named_breaker_facts(view, names[view.tenant_id]) if isinstance(view, BreakerView) else extension_state(view)
        for view in shown
    ]
    return {"states": states, **paging}


async def _provider_names(services: AdminServices, tenant_id: str) -> dict[bytes, str]:
    return {provider_entry(n): n for n in named_providers(await policies_of(services.policies, tenant_id))}


async def _extension_health(services: AdminServices, body: ActFields, _by: Actor) -> Answer:
    """Report the extensions called within a day, or only the one that `extension_id` names."""
    extension_id = body.text("extension_id")
    body.check()
    records = [r for r in await services.extensions.records() if extension_id is None or r.name.id == extension_id]
    if extension_id is not None and not records:
        return Refused(Code.EXTENSION_NOT_FOUND, f"no extension {extension_id} was called within a day")
    return {"health": extension_health(records)}


async def _dry_run(services: AdminServices, body: ActFields, _by: Actor) -> Answer:
    """Answer a request as a decide would now, and charge nothing. A whole decide request is accepted too."""
    stored = await _stored_policy(services, body)
    if isinstance(stored, Refused):
        return stored
    request = decode_dry_run(body.whole())
    if isinstance(request, Rejected):
        return request.refused
    answer = await services.dry_run(request, stored)
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


async def _complexity(services: AdminServices, body: ActFields, _by: Actor) -> Answer:
    """Score a policy's pipeline of extensions, and estimate its latency."""
    stored = await _stored_policy(services, body)
    return stored if isinstance(stored, Refused) else complexity_facts(stored.policy)


async def _stored_policy(services: AdminServices, body: ActFields) -> StoredPolicy | Refused:
    tenant, policy_id = body.tenant(), body.policy()
    body.check()
    policies = await policies_of(services.policies, tenant)
    if policies is not None and policy_id not in policies.policies and services.policies.may_be_outdated(tenant):
        policies = await services.policies.load(tenant)
    stored = None if policies is None else policies.policies.get(policy_id)
    return _no_policy(tenant, policy_id) if stored is None else stored


async def _list_tenants(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """List the tenants that have, or had, a policy, in pages."""
    cursor, limit = body.cursor(), body.limit()
    body.check()
    heads, paging = page(((h.tenant_id, h) for h in await services.overrides(by).tenants()), cursor, limit)
    tenants: list[JsonValue] = [{"tenant_id": h.tenant_id, "revision": h.revision, "disabled": h.off} for h in heads]
    return {"tenants": tenants, **paging}


async def _list_providers(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """List a tenant's providers with their policies, levers and breakers."""
    tenant = body.tenant()
    body.check()
    return provider_facts(await services.overrides(by).providers(tenant))


async def _drain_provider(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Give a provider no new work."""
    tenant, provider, why = _lever(body)
    return {"changed": await services.overrides(by).drain(tenant, provider, on=True, why=why)}


async def _enable_provider(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Give a drained provider work again."""
    tenant, provider, why = _lever(body)
    return {"changed": await services.overrides(by).drain(tenant, provider, on=False, why=why)}


async def _force_open(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Hold a provider's breaker open until it is reset."""
    tenant, provider, why = _lever(body)
    return {"changed": await services.overrides(by).force_open(tenant, provider, why=why)}


async def _reset(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Close a provider's breaker, forced or tripped, and clear its counts."""
    tenant, provider, why = _lever(body)
    return {"changed": await services.overrides(by).reset(tenant, provider, why=why)}


def _lever(body: ActFields) -> tuple[str, str, str | None]:
    """Tenant, provider and reason of a lever act."""
    lever = body.tenant(), body.required_text("provider_id"), body.text("why")
    body.check()
    return lever


async def _disable_tenant(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Refuse a tenant's new requests."""
    return await _switch_tenant(services, body, by, on=False)


async def _enable_tenant(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Accept a tenant's requests again."""
    return await _switch_tenant(services, body, by, on=True)


async def _switch_tenant(services: AdminServices, body: ActFields, by: Actor, *, on: bool) -> Answer:
    tenant, why = body.tenant(), body.text("why")
    body.check()
    return {"changed": await services.overrides(by).switch(tenant, on=on, why=why)}


async def _forget(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Forget the answer to one request, named by exactly one of the two ids."""
    tenant, why = body.tenant(), body.text("why")
    request_id, key = body.text("request_id"), body.text("idempotency_key")
    body.check()
    overrides = services.overrides(by)
    return {"changed": await overrides.forget(tenant, request_id=request_id, idempotency_key=key, why=why)}


async def _list_policies(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """List a tenant's policies with their revisions."""
    tenant = body.tenant()
    body.check()
    records = (await services.publisher(by).list(tenant)).records
    policies: list[JsonValue] = [
        {"policy_id": r.policy_id, "revision": r.revision, "hash": r.hash, "created_ms": r.created_ms} for r in records
    ]
    return {"policies": policies}


async def _get_policy(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Return one policy's document."""
    tenant, policy_id = body.tenant(), body.policy()
    body.check()
    record = await services.publisher(by).show(tenant, policy_id)
    if record is None:
        return _no_policy(tenant, policy_id)
    document: JsonObject = orjson.loads(record.document)
    return {"policy_id": policy_id, "revision": record.revision, "hash": record.hash, "policy": document}


def _no_policy(tenant_id: str, policy_id: str) -> Refused:
    return Refused(Code.POLICY_NOT_FOUND, f"tenant {tenant_id} has no policy {policy_id}")


async def _upsert_policy(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Write a policy's document."""
    tenant, policy_id, policy = body.tenant(), body.policy(), orjson.dumps(body.document("policy"))
    expect, dry_run = body.revision("expect_revision"), body.flag("dry_run")
    body.check()
    publisher = services.publisher(by)
    return published_facts(await publisher.apply(tenant, policy_id, policy, expect_revision=expect, dry_run=dry_run))


async def _delete_policy(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Delete a policy."""
    tenant, policy_id = body.tenant(), body.required_policy()
    expect, dry_run = body.revision("expect_revision"), body.flag("dry_run")
    body.check()
    publisher = services.publisher(by)
    return published_facts(await publisher.delete(tenant, policy_id, expect_revision=expect, dry_run=dry_run))


async def _rollback_policy(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Write a policy's content at an earlier revision as a new revision."""
    tenant, policy_id, revision = body.tenant(), body.policy(), body.required_revision("revision")
    expect, dry_run = body.revision("expect_revision"), body.flag("dry_run")
    body.check()
    publisher = services.publisher(by)
    return published_facts(
        await publisher.rollback(tenant, policy_id, revision, expect_revision=expect, dry_run=dry_run)
    )


async def _show_tenant(services: AdminServices, body: ActFields, _by: Actor) -> Answer:
    """Count a tenant's keys and open tasks."""
    tenant = body.tenant()
    body.check()
    return {"tenant_id": tenant, **census_facts(await services.tenants.census(tenant))}


async def _purge_tenant(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """End a tenant and remove all its keys; `confirm` repeats the tenant's name."""
    tenant, dry_run = body.tenant(), body.flag("dry_run")
    confirm, why = body.text("confirm"), body.text("why")
    body.check()
    purger = services.purger(by)
    purged = await (purger.would(tenant) if dry_run else purger.purge(tenant, confirm=confirm, why=why))
    return purged_facts(tenant, purged, dry_run=dry_run)


_PAGE = ("cursor", "limit")
_POLICY = ("tenant_id", "policy_id")
_LEVER = ("tenant_id", "provider_id", "why")
_SWITCH = ("tenant_id", "why")
_WRITE = ("expect_revision", "dry_run")
_VIEWER, _OPERATOR, _ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN

_TABLE = (
    Act("get_circuit_breaker_states", _VIEWER, ("tenant_id", *_PAGE), _breaker_states, may_be_open=True),
    Act("get_extension_health", _VIEWER, ("extension_id",), _extension_health, may_be_open=True),
    Act("dry_run_pipeline", _VIEWER, (*_POLICY, "payload"), _dry_run, may_be_open=True),
    Act("get_pipeline_complexity", _VIEWER, _POLICY, _complexity, may_be_open=True),
    Act("list_tenants", _VIEWER, _PAGE, _list_tenants),
    Act("list_providers", _VIEWER, ("tenant_id",), _list_providers),
    Act("list_policies", _VIEWER, ("tenant_id",), _list_policies),
    Act("get_policy", _VIEWER, _POLICY, _get_policy),
    Act("show_tenant", _VIEWER, ("tenant_id",), _show_tenant),
    Act("drain_provider", _OPERATOR, _LEVER, _drain_provider),
    Act("enable_provider", _OPERATOR, _LEVER, _enable_provider),
    Act("force_open_breaker", _OPERATOR, _LEVER, _force_open),
    Act("reset_breaker", _OPERATOR, _LEVER, _reset),
    Act("disable_tenant", _OPERATOR, _SWITCH, _disable_tenant),
    Act("enable_tenant", _OPERATOR, _SWITCH, _enable_tenant),
    Act("forget_idempotency_key", _OPERATOR, ("tenant_id", "request_id", "idempotency_key", "why"), _forget),
    Act("upsert_policy", _ADMIN, (*_POLICY, "policy", *_WRITE), _upsert_policy),
    Act("delete_policy", _ADMIN, (*_POLICY, *_WRITE), _delete_policy),
    Act("rollback_policy", _ADMIN, (*_POLICY, "revision", *_WRITE), _rollback_policy),
    Act("purge_tenant", _ADMIN, ("tenant_id", "confirm", "dry_run", "why"), _purge_tenant),
)
ACTS = {act.name: act for act in _TABLE}
