"""`router decide`: ask the fleet over NATS, as any caller would."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.shared.exits import Exit
from router.cli.shared.names import AskedPolicyOption, TenantOption
from router.cli.shared.output import note, print_facts, print_json
from router.cli.shared.target import JsonOption, NatsOption

if TYPE_CHECKING:
    from asyncio import Future

    from router.bus.client.connection import Bus
    from router.settings import Settings

PayloadOption = Annotated[str, typer.Option(metavar="JSON", help="The task's payload: JSON, @FILE, or - for stdin.")]
SessionOption = Annotated[str | None, typer.Option(help="context.session_id, for sticky policies.")]
UserOption = Annotated[str | None, typer.Option(help="context.user_id, for user limits.")]

_STATUS_OF = {"succeeded": "success", "failed": "error", "timed_out": "timeout", "cancelled": "cancelled"}


def decide(
    tenant: TenantOption,
    task: Annotated[str, typer.Option(help="The task's type.")],
    payload: PayloadOption = "{}",
    policy: AskedPolicyOption = None,
    request_id: Annotated[str | None, typer.Option(help="Repeat one to get the same decision again.")] = None,
    session: SessionOption = None,
    user: UserOption = None,
    push: Annotated[bool, typer.Option("--push", help="Also dispatch the task to a worker.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Dispatch, and wait for the final result.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show why this provider was chosen.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the reply, and for the result.")] = 5.0,
    json: JsonOption = False,
    nats: NatsOption = None,
) -> None:
    """Ask who runs a task for a tenant, and print the decision.

    Asks on beamline.router.v1.decide.TENANT; on the subject without a tenant if NATS permits only that one.

    Exit code 1: the fleet refused, the task's result is not a success, or none came in time. Without a result, the
    state of the task is shown.

    Example: router decide --tenant acme --task chat --payload '{"prompt":"hello"}' --wait
    """
    import asyncio

    from router.cli.shared.target import settings_for

    body = request_body(
        tenant, task=task, payload=payload, policy=policy, request_id=request_id, session=session, user=user
    )
    if push or wait:
        body["push_assignment"] = True
    if explain:
        body["options"] = {"explain": True}
    answer, result = asyncio.run(_ask(settings_for(nats=nats), body, timeout, wait=wait))
    if json:
        print_json(answer["reply"] if result is None else {"reply": answer["reply"], "result": result})
    else:
        _show(answer, result)
    succeeded = result is None or "success" in (result.get("status"), _STATUS_OF.get(result.get("state", "")))
    raise typer.Exit(Exit.OK if answer["reply"].get("ok") is True and succeeded else Exit.NEGATIVE)


def request_body(
    tenant: str,
    *,
    task: str,
    payload: str,
    policy: str | None,
    request_id: str | None,
    session: str | None,
    user: str | None,
) -> dict[str, Any]:
    """The request that the options describe; `payload` is the text of `--payload`."""
    import uuid

    body: dict[str, Any] = {
        "version": "1",
        "tenant_id": tenant,
        "request_id": str(uuid.uuid4()) if request_id is None else request_id,
        "task": {"type": task, "payload": _payload(payload)},
    }
    context = {k: v for k, v in (("session_id", session), ("user_id", user)) if v is not None}
    if policy is not None:
        body["policy_id"] = policy
    if context:
        body["context"] = context
    return body


def _payload(text: str) -> Any:
    import sys

    import orjson

    from router.wire.parse import BOM

    try:
        if text == "-":
            return orjson.loads(sys.stdin.buffer.read().removeprefix(BOM))
        if text.startswith("@"):
            return orjson.loads(Path(text[1:]).read_bytes().removeprefix(BOM))
        return orjson.loads(text)
    except OSError as e:
        raise typer.BadParameter(f"{text[1:]} cannot be read: {e.strerror}", param_hint="--payload") from e
    except ValueError as e:
        raise typer.BadParameter(f"not JSON: {e}; a text needs quotes: '\"hello\"'", param_hint="--payload") from e


async def _ask(
    settings: "Settings", body: dict[str, Any], timeout_s: float, *, wait: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The reply with pod and time, and with `--wait` the final result.

    :raises BusError: NATS or the fleet did not answer in time.
    """
    import asyncio
    import time

    import orjson

    from router.cli.shared.bus import ask_for_tenant, open_bus
    from router.wire.subjects import DECIDE

    arrived: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def deliver(_subject: bytes, _reply: bytes, data: bytes, _raw: bytes | None) -> None:
        if not arrived.done():
            arrived.set_result(orjson.loads(data))

    async with open_bus(settings) as bus:
        if wait:
            inbox = bus.new_inbox()
            await bus.subscribe(inbox, deliver)
            body["options"] = body.get("options", {}) | {"result_subject": inbox}
        started = time.monotonic()
        answered = await ask_for_tenant(bus, DECIDE, body["tenant_id"], orjson.dumps(body), timeout_s=timeout_s)
        ms = (time.monotonic() - started) * 1000
        reply = orjson.loads(answered.data)
        answer = {"reply": reply, "pod": answered.headers.get("router-pod"), "ms": ms}
        if not wait or reply.get("ok") is not True:
            return answer, None
        return answer, await _final(bus=bus, body=body, reply=reply, arrived=arrived, timeout_s=timeout_s)


async def _final(
    bus: "Bus", body: dict[str, Any], reply: dict[str, Any], arrived: "Future[dict[str, Any]]", timeout_s: float
) -> dict[str, Any]:
    """The final result; if none arrives in time, or it was published before this call, the state of the task."""
    import asyncio

    replayed = (reply.get("context") or {}).get("replayed") is True
    if replayed and (state := await _state(bus, body)).get("state") in _STATUS_OF:
        return state
    try:
        return await asyncio.wait_for(arrived, timeout_s)
    except TimeoutError:
        return await _state(bus, body)


async def _state(bus: "Bus", body: dict[str, Any]) -> dict[str, Any]:
    import orjson

    from router.cli.shared.bus import ask_for_tenant
    from router.wire.subjects import GET_DECISION

    question = orjson.dumps({"tenant_id": body["tenant_id"], "request_id": body["request_id"]})
    answer = await ask_for_tenant(bus, GET_DECISION, body["tenant_id"], question, timeout_s=2.0)
    assignment: dict[str, Any] = orjson.loads(answer.data).get("assignment") or {}
    return {k: assignment.get(k) for k in ("state", "attempt", "task_id", "assignment_id")}


def _show(answer: dict[str, Any], result: dict[str, Any] | None) -> None:
    reply, context = answer["reply"], answer["reply"].get("context") or {}
    facts: list[tuple[str, Any]]
    if reply.get("ok") is True:
        facts = _decision(reply["decision"], context=context)
    else:
        error = reply.get("error") or {}
        note(f"refused: {error.get('code')}: {error.get('message')}")
        facts = [(k, v) for k, v in (error.get("details") or {}).items() if k != "explain"]
    facts += [("warning", text) for text in context.get("warnings") or ()]
    facts += [("request", context.get("request_id")), ("answered by", f"{answer['pod']} in {answer['ms']:.1f} ms")]
    if result is not None and "state" in result:
        note(f"no final result: the task is {result['state'] or 'no longer known'}, attempt {result['attempt']}")
        facts.append(("task", result["task_id"]))
    elif result is not None:
        took = "" if result.get("latency_ms") is None else f" in {result['latency_ms']} ms"
        facts += [
            ("result", f"{result.get('status')}{took}, attempt {result.get('attempt')}"),
            ("error", result.get("error_code")),
            ("output", result.get("output")),
        ]
    print_facts(facts)
    why = context.get("explain") or ((reply.get("error") or {}).get("details") or {}).get("explain")
    if why:
        from router.cli.shared.story import print_why

        print_why(why)


def _decision(decision: dict[str, Any], *, context: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("provider", decision["provider_id"]),
        ("reason", f"{decision['reason']} (priority {decision['priority']})"),
        ("policy", f"{decision['policy_id']}, revision {decision['policy_revision']}"),
        ("expected", f"{decision['expected_latency_ms']} ms, cost {decision['expected_cost']}"),
        ("decision", decision["decision_id"]),
        ("assignment", context.get("assignment_id")),
        ("replayed", "yes: this request was answered before" if context.get("replayed") else None),
        ("sticky key", decision.get("sticky_key")),
        ("metadata", decision.get("metadata") or None),
    ]
