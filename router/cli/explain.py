"""`router explain`: why a decision was made (from its audit entry), or which one would be made now."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.decide import PayloadOption, SessionOption, UserOption, request_body
from router.cli.shared.exits import Exit
from router.cli.shared.names import AskedPolicyOption, LogOption
from router.cli.shared.output import note, print_json
from router.cli.shared.target import JsonOption, NatsOption, RedisOption

if TYPE_CHECKING:
    from router.domain.audit.records import AuditEntry
    from router.settings import Settings

DRY_RUN = "beamline.router.v1.admin.dry_run_pipeline"


def explain(
    tenant: LogOption,
    entry: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="An audit entry or a decision_id."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be decided now; charges nothing. Needs --task.")
    ] = False,
    task: Annotated[str | None, typer.Option(help="The task's type.")] = None,
    payload: PayloadOption = "{}",
    policy: AskedPolicyOption = None,
    request_id: Annotated[str | None, typer.Option(help="The request id; without it a new one.")] = None,
    session: SessionOption = None,
    user: UserOption = None,
    max_latency_ms: Annotated[int | None, typer.Option(min=0, help="constraints.max_latency_ms.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="constraints.max_cost, in USD.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the reply.")] = 5.0,
    json: JsonOption = False,
    nats: NatsOption = None,
    redis: RedisOption = None,
) -> None:
    """Explain why a request got its provider, or which provider it would get.

    Exit code 1: there is no such entry, or the request would be refused.

    Example: router explain --tenant acme --dry-run --task chat
    """
    import asyncio

    from router.cli.shared.target import settings_for

    if (entry is None) is not dry_run:
        raise typer.BadParameter("name a decision with --id, or use --dry-run", param_hint="--id")
    if entry is not None:
        found = asyncio.run(_entry(settings_for(redis=redis), tenant, name=entry))
        raise typer.Exit(_print_entry(found, tenant, name=entry, json=json))
    if task is None:
        raise typer.BadParameter("a dry run needs a task", param_hint="--task")
    body = request_body(
        tenant, task=task, payload=payload, policy=policy, request_id=request_id, session=session, user=user
    )
    constraints = {"max_latency_ms": max_latency_ms, "max_cost": max_cost}
    if any(v is not None for v in constraints.values()):
        body["constraints"] = {k: v for k, v in constraints.items() if v is not None}
    reply = asyncio.run(_dry_run(settings_for(nats=nats), body, timeout))
    raise typer.Exit(_print_dry_run(reply, json=json))


async def _entry(settings: "Settings", tenant: str, *, name: str) -> "AuditEntry | None":
    """The audit entry with this id, or the entry of the decision that the id or the entry names."""
    from router.cli.shared.connections import open_store
    from router.domain.audit.records import AuditQuery
    from router.domain.ids import from_text
    from router.store.audit.log import RedisAudit
    from router.usecases.audit.query import QueryAudit

    async with open_store(settings, reading=True) as store:
        log = RedisAudit(store.keys, store.nodes)
        found: AuditEntry | None = None
        decision: object = name
        if from_text(name) is None:
            found = await log.entry(tenant, entry_id=name)
            if found is None or found.action.startswith("decision."):
                return found
            decision = found.details.get("decision_id")
        if isinstance(decision, str):
            wanted = AuditQuery(tenant, action="decision.", decision_id=decision)
            page = await QueryAudit(log).page(wanted, limit=1)
            return page.entries[0] if page.entries else found
        return found


def _print_entry(found: "AuditEntry | None", tenant: str, *, name: str, json: bool) -> Exit:
    from router.cli.shared.audit_rows import facts, moment
    from router.cli.shared.story import print_story, reason_of, refusal_of

    if found is None:
        note(f"tenant {tenant} has no audit entry {name}: see `router audit query --tenant {tenant} --json` for ids")
        if json:
            print_json(None)
        return Exit.NEGATIVE
    if json:
        print_json(facts(found))
        return Exit.OK
    why = dict(found.details)
    head = f"{moment(found.ts_us)}  request {why.get('request_id')} ({why.get('task_type')}) of tenant {tenant} "
    if "refusal" in why:
        head += f"was refused: {refusal_of(why)}"
    elif "reason" in why:
        head += f"got provider {why['provider_id']}: {reason_of(str(why['reason']))}"
        why["degraded"] = found.action == "decision.degraded"
    else:
        note(f"entry {name} is not a decision, and its decision is no longer in the log")
        head = f"{moment(found.ts_us)}  {found.action} {found.resource_id}"
    print_story(head, why, found.ts_us)
    return Exit.OK


async def _dry_run(settings: "Settings", body: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """The answer of the admin act.

    :raises BusError: NATS or the fleet did not answer in time.
    """
    import orjson

    from router.cli.shared.bus import open_bus

    token = settings.viewer_token or settings.operator_token or settings.admin_token
    headers = None if token is None else {"authorization": f"Bearer {token.get_secret_value()}"}
    async with open_bus(settings) as bus:
        message = await bus.request(DRY_RUN, orjson.dumps(body), headers, timeout_s=timeout_s)
    reply: dict[str, Any] = orjson.loads(message.data)
    return reply


def _token_is_wrong(reply: dict[str, Any]) -> bool:
    """Whether the admin act was refused, as opposed to the request it is about."""
    error = reply.get("error") or {}
    return error.get("code") == "unauthorized" and "token" in error.get("message", "")


def _print_dry_run(reply: dict[str, Any], *, json: bool) -> Exit:
    from router.cli.shared.story import print_story, reason_of, seconds

    ok = reply.get("ok") is True
    if json:
        print_json(reply)
    elif ok:
        result = reply["result"]
        decision = result["decision"]
        head = f"it would get provider {decision['provider_id']}: {reason_of(decision['reason'])}"
        print_story(head, result["explain"])
    elif _token_is_wrong(reply):
        note(f"refused: {reply['error']['message']} (it is read from ROUTER_VIEWER_TOKEN or ROUTER_VIEWER_TOKEN_FILE)")
    else:
        error = reply.get("error") or {}
        details = error.get("details") or {}
        wait = details.get("retry_after_ms")
        again = "" if wait is None else f"; ask again after {seconds(wait)}"
        why = details.get("explain") or {k: details[k] for k in ("candidates",) if k in details}
        print_story(f"it would be refused: {error.get('code')}: {error.get('message')}{again}", why)
    return Exit.OK if ok else Exit.NEGATIVE
