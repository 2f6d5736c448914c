"""Garbage: always exactly one reply, always a clear error, and the pods live on (issue "done when")."""

import asyncio
from hashlib import sha256
from typing import Any

import orjson
import pytest

from tests.fleet.foreign import DECIDE, Foreign, task
from tests.fleet.harness import Fleet

NUL, LINE = "\x00", "a\nb"


def good(**fields: Any) -> bytes:
    """A request with these fields set."""
    return orjson.dumps(task("acme", "r") | fields)


RAW: dict[str, bytes] = {
    "empty body": b"",
    "blank body": b"  \n ",
    "not JSON": b"hello",
    "half JSON": b'{"version":"1","tenant_id":',
    "invalid UTF-8": b'{"version":"1","tenant_id":"\xff\xfe"}',
    "NUL bytes": b"\x00" * 100,
    "NaN": b'{"version":"1","tenant_id":"acme","request_id":"r","task":{"type":"t","payload":{"x":NaN}}}',
    "Infinity": b'{"version":"1","tenant_id":"acme","task":{"type":"t"},"constraints":{"max_cost":Infinity}}',
    "array": b"[1,2,3]",
    "array of requests": b"[" + good() + b"]",
    "number": b"42",
    "string": b'"hi"',
    "null": b"null",
    "deep arrays": b'{"version":"1","tenant_id":"acme","task":{"type":"t","payload":' + b"[" * 900 + b"]" * 900 + b"}}",
    "bottomless arrays": b"[" * 100_000,
    "deep context": b'{"version":"1","tenant_id":"acme","message":{},"context":{"a":' + b"[" * 300 + b"]" * 300 + b"}}",
    "lone surrogate": b'{"version":"1","tenant_id":"\\ud800","task":{"type":"t"}}',
    "2 MiB": b'{"version":"1","tenant_id":"acme","task":{"type":"t","payload":"' + b"x" * (2 << 20) + b'"}}',
    "two documents": good() + good(),
    "byte order mark": b"\xef\xbb\xbf" + good(),
    "no shape": b'{"version":"1","tenant_id":"acme"}',
    "wrong version": good(version="2"),
    "number for version": good(version=1),
    "array for tenant": good(tenant_id=["acme"]),
    "object for tenant": good(tenant_id={"$ne": 1}),
    "huge tenant": good(tenant_id="a" * 256),
    "key syntax in tenant": good(tenant_id="a:{b}:c"),
    "control character in tenant": good(tenant_id="ac\x00me"),
    "control character in request_id": good(request_id=NUL),
    "line break in request_id": good(request_id=LINE),
    "array for request_id": good(request_id=[]),
    "long request_id": good(request_id="r" * 257),
    "long trace_id": good(trace_id="t" * 129),
    "control character in policy_id": good(policy_id="a\x1fb"),
    "path in policy_id": good(policy_id="../../etc/passwd"),
    "string for task": good(task="chat"),
    "array for task": good(task=[]),
    "no task type": good(task={}),
    "number for task type": good(task={"type": 7}),
    "string for context": good(context="x"),
    "array for options": good(options=[]),
    "huge deadline": good(options={"deadline_ms": 10**15}),
    "negative deadline": good(options={"deadline_ms": -1}),
    "huge number": b'{"version":"1","tenant_id":"acme","task":{"type":"t"},"options":{"estimate":{"tokens":1e308}}}',
    "number beyond 64 bits": b'{"version":"1","tenant_id":"acme","task":{"type":"t"},"options":{"deadline_ms":'
    + b"9" * 400
    + b"}}",
    "negative estimate": good(options={"estimate": {"cost": -5}}),
    "text for push": good(push_assignment="yes"),
    "wildcard assignment subject": good(assignment_subject="caf.exec.>"),
    "own assignment subject": good(assignment_subject="caf.exec.result.v1"),
    "result subject of others": good(options={"result_subject": "beamline.router.v1.decide"}),
    "bad address": good(context={"ip_address": "999.1.1.1"}),
    "ten thousand fields of a wrong type": good(context={f"retry_attempts_{i}": "x" for i in range(10_000)}),
    "ten thousand providers": good(task={"type": 1, "providers": [f"p{i}" for i in range(10_000)]}),
    "unknown tenant": good(tenant_id="nobody-here"),
}
PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.mark.parametrize("name", RAW)
async def test_garbage_gets_one_clear_error(fleet: Fleet, caller: Foreign, name: str) -> None:
    """One reply under 64 KiB in the form of an error, `intake_error_code` null, a message that says something."""
    reply = await caller.raw(RAW[name])
    error = reply.error
    assert error["code"] in {"invalid_request", "policy_not_found", "unauthorized"}
    assert error["intake_error_code"] is None
    assert len(error["message"]) > 5
    assert set(reply.body["context"]) >= {"request_id"}
    assert len(reply.data) < 65536


@pytest.mark.parametrize(
    "data", [b"\xff" * 50, b"", good(), b"\x0a\xff\xff\xff\xff\x0f"], ids=["noise", "empty", "JSON", "long field"]
)
async def test_garbage_as_protobuf_gets_one_error(fleet: Fleet, caller: Foreign, data: bytes) -> None:
    """Noise under the protobuf content type is refused by headers, or in JSON when there is no body to be protobuf."""
    reply = await caller.raw(data, PROTOBUF)
    assert reply.headers["x-error-code"] == "invalid_request"
    assert reply.headers["Nats-Service-Error-Code"] == "400"


@pytest.mark.parametrize("token", ["x" * 300, "ü", "a:b", "{a}"])
async def test_a_bad_tenant_in_the_subject_gets_one_error(fleet: Fleet, caller: Foreign, token: str) -> None:
    """A tenant that cannot be one."""
    assert (await caller.raw(good(), subject=f"{DECIDE}.{token}")).error["code"] == "invalid_request"


async def test_unknown_names_create_no_keys(fleet: Fleet, caller: Foreign) -> None:
    """Requests of unknown tenants and policies leave nothing in the store."""
    before = await fleet.redis("DBSIZE")
    tenant = f"nobody-{before}"
    assert {r.error["code"] for r in await caller.all([task(tenant) for _ in range(20)])} == {"policy_not_found"}
    keys = await fleet.redis("KEYS", f"*{tenant}*")
    assert keys == []


async def test_all_garbage_at_once_leaves_both_pods_well(fleet: Fleet, caller: Foreign) -> None:
    """Everything twice and at once, good requests in between: one reply each, the good ones decided, no bug logged."""
    tenant = await fleet.tenant()
    futures = []
    for data in [*RAW.values(), *RAW.values()]:
        futures.append(await caller.send(data))
        futures.append(await caller.send(orjson.dumps(task(tenant))))
    replies = await asyncio.wait_for(asyncio.gather(*futures), 20)
    assert [r.ok for r in replies[1::2]] == [True] * len(replies[1::2])
    assert not any(r.ok for r in replies[::2])
    for pod in fleet.pods:
        assert (await pod.readyz())[0] == 200
        assert pod.logged("pod.bug") == []


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("request_id", '"request_id":"lost","request_id":"kept"'),
        ("tenant_id", '"tenant_id":"nobody","tenant_id":"{tenant}"'),
        ("policy_id", '"policy_id":"nothing","policy_id":"default"'),
        ("version", '"version":"9","version":"1"'),
        ("task", '"task":7,"task":{{"type":1,"type":"chat"}}'),
        ("trace_id", '"trace_id":[],"trace_id":"t"'),
        ("context", '"context":9,"context":{{"user_id":1,"user_id":"u"}}'),
        ("options", '"options":9,"options":{{"explain":3,"explain":false}}'),
    ],
)
async def test_of_duplicate_json_keys_the_last_one_wins(fleet: Fleet, caller: Foreign, field: str, text: str) -> None:
    """For every field: the first value would be refused, the last one is what counts."""
    tenant = await fleet.tenant()
    rest = {k: v for k, v in task(tenant, f"r-{field}").items() if k != field}
    data = b"{" + text.format(tenant=tenant).encode() + b"," + orjson.dumps(rest)[1:]
    reply = await caller.raw(data)
    assert reply.decision["policy_id"] == "default"
    assert reply.context["request_id"] == ("kept" if field == "request_id" else f"r-{field}")


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("output", '{"text": "cut \\ud83d"}'),
        ("output", '"a raw line\nbreak"'),
        ("cost", "NaN"),
        ("cost", '"cheap"'),
        ("latency_ms", "-Infinity"),
        ("tokens", '{"input": "3", "output": 4}'),
        ("provider_id", "[1, 2]"),
        ("request_id", "{}"),
        ("error_message", '"cut \xff"'),
    ],
)
async def test_a_defect_that_settling_does_not_need_costs_no_result(
    fleet: Fleet, caller: Foreign, field: str, sent: str
) -> None:
    """Settled and metered once by a running fleet, with a note in the audit; no dead letter, and no second attempt."""
    tenant = await fleet.tenant()
    usage = await caller.watch("beamline.usage.v1.metered")
    letters = await caller.watch("caf.exec.result.v1.dlq")
    assigned = await caller.watch("caf.exec.assign.v1")
    await caller.ask(task(tenant, push_assignment=True))
    work = await assigned.one(tenant_id=tenant)
    body = f'{{"assignment_id": "{work["assignment_id"]}", "status": "Success", "{field}": {sent}}}'
    data = body.encode("latin-1")
    await caller.client.publish("caf.exec.result.v1", data)
    await usage.one(tenant_id=tenant)
    (entry,) = [e for e in await fleet.audit(tenant) if e.action == "result.settled"]
    assert "status is not in lower case" in str(entry.details["note"])
    assert len(str(entry.details["note"]).split(";")) >= 2
    assert letters.where(payload_sha256=sha256(data).hexdigest()) == []
    assert len(assigned.where(tenant_id=tenant)) == 1


async def test_half_a_character_in_a_request_is_decided_with_a_warning(fleet: Fleet, caller: Foreign) -> None:
    """Python's json writes it for a text that was cut; the reply says what was read, and the metric counts it."""
    tenant = await fleet.tenant()
    body = good(tenant_id=tenant)[:-1] + b',"metadata":{"title":"cut \\ud83d"}}'
    reply = await caller.raw(body)
    assert reply.decision["policy_id"] == "default"
    assert reply.context["warnings"] == ["the body has half a character (a lone surrogate): read as U+FFFD"]
    assert await fleet.total("router_input_defects_total") >= 1
