"""Acts about policies."""

import orjson

from router.domain.audit.records import Actor
from router.domain.decide.decision import Code, Refused
from router.domain.json import JsonObject, JsonValue
from router.domain.policy.model import StoredPolicy
from router.domain.roles import Role
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.act_replies import published_facts
from router.usecases.admin.acts.act import POLICY, WRITE, Act, AdminServices, Answer
from router.usecases.policies.lookups import policies_of


async def stored_policy(services: AdminServices, body: ActFields) -> StoredPolicy | Refused:
    """The policy that the body names, read again if the cached ones may be outdated."""
    tenant, policy_id = body.tenant(), body.policy()
    body.check()
    policies = await policies_of(services.policies, tenant)
    if policies is not None and policy_id not in policies.policies and services.policies.may_be_outdated(tenant):
        policies = await services.policies.load(tenant)
    stored = None if policies is None else policies.policies.get(policy_id)
    return _no_policy(tenant, policy_id=policy_id) if stored is None else stored


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
    record = await services.publisher(by).show(tenant, policy_id=policy_id)
    if record is None:
        return _no_policy(tenant, policy_id=policy_id)
    document: JsonObject = orjson.loads(record.document)
    return {"policy_id": policy_id, "revision": record.revision, "hash": record.hash, "policy": document}


def _no_policy(tenant_id: str, *, policy_id: str) -> Refused:
    return Refused(Code.POLICY_NOT_FOUND, f"tenant {tenant_id} has no policy {policy_id}")


async def _upsert_policy(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Write a policy's document."""
    tenant, policy_id, policy = body.tenant(), body.policy(), orjson.dumps(body.document("policy"))
    expect, dry_run = body.revision("expect_revision"), body.flag("dry_run")
    body.check()
    publisher = services.publisher(by)
    return published_facts(
        await publisher.apply(tenant, policy_id=policy_id, document=policy, expect_revision=expect, dry_run=dry_run)
    )


async def _delete_policy(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Delete a policy."""
    tenant, policy_id = body.tenant(), body.required_policy()
    expect, dry_run = body.revision("expect_revision"), body.flag("dry_run")
    body.check()
    publisher = services.publisher(by)
    return published_facts(await publisher.delete(tenant, policy_id=policy_id, expect_revision=expect, dry_run=dry_run))


async def _rollback_policy(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Write a policy's content at an earlier revision as a new revision."""
    tenant, policy_id, revision = body.tenant(), body.policy(), body.required_revision("revision")
    expect, dry_run = body.revision("expect_revision"), body.flag("dry_run")
    body.check()
    publisher = services.publisher(by)
    return published_facts(
        await publisher.rollback(
            tenant, policy_id=policy_id, revision=revision, expect_revision=expect, dry_run=dry_run
        )
    )


POLICY_ACTS = (
    Act("list_policies", Role.VIEWER, ("tenant_id",), _list_policies),
    Act("get_policy", Role.VIEWER, POLICY, _get_policy),
    Act("upsert_policy", Role.ADMIN, (*POLICY, "policy", *WRITE), _upsert_policy),
    Act("delete_policy", Role.ADMIN, (*POLICY, *WRITE), _delete_policy),
    Act("rollback_policy", Role.ADMIN, (*POLICY, "revision", *WRITE), _rollback_policy),
)
