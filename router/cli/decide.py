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

    from nats.aio.client import Client

PayloadOption = Annotated[str, typer.Option(metavar="JSON", help="The task's payload: JSON, @FILE, or - for stdin.")]
SessionOption = Annotated[str | None, typer.Option(help="context.session_id, for sticky policies.")]
UserOption = Annotated[str | None, typer.Option(help="context.user_id, for user limits.")]

DECIDE = "beamline.router.v1.decide"
GET_DECISION = "beamline.router.v1.get_decision"
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

    Exit code 1: the fleet refused, the task's result is not a success, or none came in time. Without a result, the
    state of the task is shown.

    Example: router decide --tenant acme --task chat --payload '{"prompt":"hello"}' --wait
    """
    import asyncio

    from router.bus.client.options import connect_arguments
    from router.cli.shared.target import bus_options, settings_for

    body = request_body(tenant, task, payload, policy=policy, request_id=request_id, session=session, user=user)
    if push or wait:
        body["push_assignment"] = True
    if explain:
        body["options"] = {"explain": True}
    where = bus_options(settings_for(nats=nats), "router-cli")
    # For nats-py, 0 means "for ever", and 1 gives up after the second try.
    connection = connect_arguments(where) | {"servers": list(where.urls), "max_reconnect_attempts": 1}
    answer, result = asyncio.run(_ask(connection, body, timeout, wait=wait))
    if json:
        print_json(answer["reply"] if result is None else {"reply": answer["reply"], "result": result})
    else:
        _show(answer, result)
    succeeded = result is None or "success" in (result.get("status"), _STATUS_OF.get(result.get("state", "")))
    raise typer.Exit(Exit.OK if answer["reply"].get("ok") is True and succeeded else Exit.NEGATIVE)


def request_body(
    tenant: str,
    task: str,
    payload: str,
    *,
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

    try:
        if text == "-":
            return orjson.loads(sys.stdin.buffer.read())
        if text.startswith("@"):
            return orjson.loads(Path(text[1:]).read_bytes())
        return orjson.loads(text)
    except OSError as e:
        raise typer.BadParameter(f"{text[1:]} cannot be read: {e.strerror}", param_hint="--payload") from e
    except ValueError as e:
        raise typer.BadParameter(f"not JSON: {e}; a text needs quotes: '\"hello\"'", param_hint="--payload") from e


async def _ask(
    connection: dict[str, Any], body: dict[str, Any], timeout_s: float, *, wait: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The reply with pod and time, and with `--wait` the final result.

    :raises BusError: NATS or the fleet did not answer in time.
    """
    import asyncio
    import time

    import orjson

    from router.bus.client.faults import translated
    from router.nats_tls import connect
    from router.redaction import address

    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[dict[str, Any]] = loop.create_future()

    async def deliver(message: Any) -> None:
        if not arrived.done():
            arrived.set_result(orjson.loads(message.data))

    with translated(", ".join(map(address, connection["servers"]))):
        client: Client = await connect(**connection, error_cb=quiet)
    try:
        with translated(DECIDE):
            if wait:
                inbox = client.new_inbox()
                await client.subscribe(inbox, cb=deliver)
                body["options"] = body.get("options", {}) | {"result_subject": inbox}
            started = time.monotonic()
            message = await client.request(DECIDE, orjson.dumps(body), timeout=timeout_s)
            ms = (time.monotonic() - started) * 1000
        reply = orjson.loads(message.data)
        answer = {"reply": reply, "pod": (message.headers or {}).get("router-pod"), "ms": ms}
        if not wait or reply.get("ok") is not True:
            return answer, None
        return answer, await _final(client=client, body=body, reply=reply, arrived=arrived, timeout_s=timeout_s)
    finally:
        await client.close()


async def _final(
    client: "Client", body: dict[str, Any], reply: dict[str, Any], arrived: "Future[dict[str, Any]]", timeout_s: float
) -> dict[str, Any]:
    """The final result; if none arrives in time, or it was published before this call, the state of the task."""
    import asyncio

    replayed = (reply.get("context") or {}).get("replayed") is True
    if replayed and (state := await _state(client, body)).get("state") in _STATUS_OF:
        return state
    try:
        return await asyncio.wait_for(arrived, timeout_s)
    except TimeoutError:
        return await _state(client, body)


async def _state(client: "Client", body: dict[str, Any]) -> dict[str, Any]:
    import orjson

    from router.bus.client.faults import translated

    question = {"tenant_id": body["tenant_id"], "request_id": body["request_id"]}
    with translated(GET_DECISION):
        answer = await client.request(GET_DECISION, orjson.dumps(question), timeout=2.0)
    assignment: dict[str, Any] = orjson.loads(answer.data).get("assignment") or {}
    return {k: assignment.get(k) for k in ("state", "attempt", "task_id", "assignment_id")}


async def quiet(_: Exception) -> None:
    """Ignore the error: the failed call reports it, and nats-py would print it a second time."""


def _show(answer: dict[str, Any], result: dict[str, Any] | None) -> None:
    reply, context = answer["reply"], answer["reply"].get("context") or {}
    facts: list[tuple[str, Any]]
    if reply.get("ok") is True:
        facts = _decision(reply["decision"], context)
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
        from router.cli.story import print_why

        print_why(why)


def _decision(decision: dict[str, Any], context: dict[str, Any]) -> list[tuple[str, Any]]:
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
