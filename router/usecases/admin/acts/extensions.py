"""Acts about extensions, and dry runs."""

from router.domain.audit.records import Actor
from router.domain.decide.decision import Code, Refused
from router.domain.roles import Role
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.act_replies import complexity_facts
from router.usecases.admin.acts.act import POLICY, Act, AdminServices, Answer
from router.usecases.admin.acts.policies import stored_policy
from router.wire.admin import decode_dry_run
from router.wire.extension_views import extension_health
from router.wire.problems import Rejected
from router.wire.reply import decision_object


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
    stored = await stored_policy(services, body)
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
    stored = await stored_policy(services, body)
    return stored if isinstance(stored, Refused) else complexity_facts(stored.policy)


EXTENSION_ACTS = (
    Act("get_extension_health", Role.VIEWER, ("extension_id",), _extension_health, may_be_open=True),
    Act("dry_run_pipeline", Role.VIEWER, (*POLICY, "payload"), _dry_run, may_be_open=True),
    Act("get_pipeline_complexity", Role.VIEWER, POLICY, _complexity, may_be_open=True),
)
