"""Every decoder of bytes that come from outside the process, and what must hold for any bytes.

A decoder returns a value or its own error, and raises nothing else. What it accepted can be written on.
"""

import struct
from collections.abc import Callable, Sequence

import msgspec
import orjson
from msgspec import Struct, msgpack

from router.bus.client import headers
from router.bus.publishing import puback
from router.domain import gate
from router.domain.audit.records import ActFeatures, DecisionFeatures, PolicyFrame, TaskFeatures
from router.domain.decide.request import DecideRequest
from router.domain.extensions.pipeline import Stage
from router.domain.policy import document
from router.domain.tasks.task import Action, Final, Move, TaskFacts
from router.errors import InvalidInput
from router.redaction import redacted
from router.store import packing
from router.store.audit import log as audit
from router.store.decide.replies import ADMITTED, DECIDE_RETURNS, HEAD, REPLAY, outcome
from router.store.extensions import record
from router.store.figures import snapshot
from router.store.tasks import records
from router.store.tasks import store as tasks
from router.store.tenants.inspect import breakers_in
from router.store.tenants.sample import kind_of_key
from router.store.tenants.walk import kind_of
from router.wire import extensions, policies
from router.wire.admin import decode_admin
from router.wire.alerts import decode_alert, decode_dead_letter
from router.wire.api_keys import decode_keys, encode_keys
from router.wire.assignment import usage_identity
from router.wire.decision_query import decode_decision_query
from router.wire.fields import MAX_MS
from router.wire.pb.beamline.flow.v1.flow_pb2 import Message, RouteRequest
from router.wire.pb.beamline.worker.v1.ack_pb2 import ExecAssignmentAck
from router.wire.pb.beamline.worker.v1.result_pb2 import ExecResult, Job
from router.wire.problems import Rejected
from router.wire.reply import encode, encode_protobuf
from router.wire.request.decide import decode, decode_in_full
from router.wire.request.peek import peek_tenant
from router.wire.request.typed import read_typed
from router.wire.worker.heartbeats import decode_heartbeat, decode_worker_dead_letter
from router.wire.worker.job import encode_job, origin_of, request_of, split
from router.wire.worker.results import decode_ack, decode_result
from router.worker.messages import read_assignment
from tests.wire.examples import message_shape, task_shape

ID = "00000000-0000-4000-8000-000000000001"
PROTOBUF = {"Content-Type": "application/x-protobuf"}


class Target(Struct, frozen=True):
    """A decoder: `read` takes any bytes and raises nothing but what it promises to raise (`errors`)."""

    read: Callable[[bytes], object]
    examples: Sequence[bytes]
    text: bool = True
    errors: tuple[type[Exception], ...] = ()


def _request(data: bytes, headers: dict[str, str] | None = None) -> None:
    answer = decode(data, headers, None)
    if isinstance(answer, Rejected):
        encode(answer.refused, request_id=answer.request_id, trace_id=answer.trace_id)
        encode_protobuf(answer.refused, request_id=answer.request_id, trace_id=answer.trace_id)
        return
    assert len(answer.fingerprint) == 8
    job = encode_job(answer, 1_000)
    if isinstance(job, bytes):
        assert request_of(job).tenant_id == answer.tenant_id == origin_of(job).tenant_id


class NotUsual(Exception):
    """The typed reader leaves the request to the full one."""


def _typed(data: bytes) -> None:
    """What the typed reader accepts, the full one reads alike: `repr` tells 1 from 1.0 and from True, == does not."""
    accepted = [tenant for tenant in (None, "acme") if read_typed(data, tenant, MAX_MS) is not None]
    for tenant in accepted:
        assert repr(decode(data, None, tenant)) == repr(decode_in_full(data, None, tenant))
    if not accepted:
        raise NotUsual


def _result(data: bytes, headers: dict[str, str] | None = None) -> None:
    result = decode_result(data, headers)
    if not isinstance(result, Rejected):
        orjson.dumps(result.output)


def _policy(data: bytes) -> None:
    parsed = policies.decode(data)
    canonical = document.canonical(parsed.policy)
    again = policies.decode(policies.encode(canonical))
    assert document.canonical(again.policy) == canonical


def _extension(data: bytes) -> None:
    for stage in Stage:
        reply = extensions.decode_reply(data, stage)
        if not isinstance(reply, str):
            orjson.dumps((reply.payload, reply.metadata))


def _job(data: bytes) -> None:
    split(data)
    request_of(data)
    origin_of(data)


def _remembered(data: bytes) -> None:
    packing.remembered(data, 3, b"n" * 10)


def _entry(data: bytes) -> None:
    audit.entry("acme", (b"1700000000000-0", {b"r": data}))
    if data[1:2] == bytes((Action.DECISION_MADE,)):
        audit.decision_record(data)


def _json(*documents: object) -> tuple[bytes, ...]:
    return tuple(orjson.dumps(d) for d in documents)


def _dispatched() -> bytes:
    request = decode(orjson.dumps(task_shape(push_assignment=True)), None, None)
    assert isinstance(request, DecideRequest)
    job = encode_job(request, 30_000)
    assert isinstance(job, bytes)
    return job


_RESULT = {
    "version": "1", "assignment_id": ID, "request_id": "r", "status": "success", "provider_id": "p",
    "job": {"type": "t"},
    "latency_ms": 12, "cost": 0.5, "tenant_id": "acme", "timestamp": 1, "output": {"a": [1]},
    "tokens": {"input": 1, "output": 2},
}  # fmt: skip
_RESULTS = _json(
    _RESULT,
    {"version": "v1", "kind": "exec_result", "data": _RESULT | {"version": "1.0", "job_type": "t"}},
    {
        "version": "1",
        "tenant_id": "acme",
        "request_id": "r",
        "status": "error",
        "error_code": "5XX",
        "context": {"status": "429"},
    },
)
_ACKS = _json({"assignment_id": ID, "status": "rejected", "message": "m", "tenant_id": "acme"})
_POLICY = {
    "version": "1.0",
    "providers": [{"name": "a", "weight": 60, "priority": 1, "expected_cost": 0.1},
        {"name": "b", "weight": 40, "max_concurrency": 2}],
    "sticky": {"enabled": True, "session_key": "session_id", "ttl": "10m"},
    "fallbacks": [{"when": {"status": ["timeout", "5xx"]}, "retry": 1, "to": "b",
        "backoff": {"strategy": "fixed", "base_ms": 10}}],
    "circuit_breaker": {"enabled": True, "failure_threshold": 5, "timeout_ms": 1000},
    "limits": [{"id": "l", "scope": "tenant", "resource": "tokens", "limit": 100, "window": "60s", "algorithm": "log"}],
    "pre": [{"id": "x", "mode": "optional"}],
}  # fmt: skip
_OLD_POLICY = {
    "weights": {"a": 0.6, "b": 0.4},
    "fallback": "b",
    "sticky": {"ttl_seconds": 60},
    "rate_limit": {"requests_per_second": 5, "burst": 9},
}
_OFFER = b"\x80\x01\x05\x01a"
_FACTS = TaskFacts("acme", "p", 1, "r", "t", None, 2, 30_000, None, "t", None, None, None, None, None, ())
_ANSWER = b"\x01" + b"f" * 8 + b"rand" + b"\x01%c" + _OFFER + packing.tail_head("p", 7) + packing.sized(b"s")
_BREAKER = (
    struct.pack(">8sBddIBdId80sB", b"e" * 8, 1, 1e12, 1e12, 3, 0, 1e12, 100, 1e9, bytes(80), 1) + b"p" * 8 + bytes(8)
)
_OF_TASK = msgpack.encode(TaskFeatures("r", "default", 1, "a", None, None, None))
_OF_DECISION = msgpack.encode(
    DecisionFeatures("r", "t", "u", None, None, 0, PolicyFrame("default", 1, "0" * 16, ("a",), ("l",), "s"))
)
_OF_ACT = msgpack.encode(ActFeatures("ann", "admin", "tenant", None, None, {"n": 1}))
_EXTENSION = struct.calcsize(">BBddI4xI4xI4xdddd8sd") + 2 * struct.calcsize(">IId23I")
_PROTOBUF_REQUEST = RouteRequest(
    message=Message(message_id="m", tenant_id="acme", message_type="chat", payload=b"{}", run_id="r"),
    policy_id="default",
).SerializeToString()


def _decide_reply(data: bytes) -> None:
    """As the lane does: the head, which the reply of every row has, then what follows by its code."""
    if len(data) >= HEAD.size and data[4] in DECIDE_RETURNS:
        outcome(data, data[4], b"\0\3" + bytes(14))


def _settle_reply(data: bytes) -> None:
    if data:
        for move in _MOVES:
            tasks._outcome(move, data[0], data[1:])


def _status(data: bytes) -> None:
    if b"\r\n" in data:  # the parser hands over whole lines
        headers.status(data)


_MOVES = [Move("acme", b"d" * 16, None, b"", task_id=task) for task in (None, b"t" * 16)]
_REPLIES = (
    HEAD.pack(7, ADMITTED, b"stamp..s") + bytes((0, 4, 0, 0, 1)) + b"\1",
    HEAD.pack(7, ADMITTED, b"stamp..s") + bytes((0, 4, 0, 1, 1)) + b"\1\0" + bytes(11),
    *(HEAD.pack(7, code, b"stamp..s") + bytes(9) for code in DECIDE_RETURNS if code not in (ADMITTED, REPLAY)),
    HEAD.pack(7, REPLAY, b"stamp..s") + _ANSWER % 65 + packing.tail_extras(None),
)

_USUAL = (
    task_shape(),
    task_shape(trace_id=None, context=None, policy_id=None),
    task_shape(
        task={"type": "chat", "payload": [1, -1, 1.0, 0.5, 1e30, True, None, {"a": [[], {}], "é": "\u0001"}]},
        run_id="run", flow_id="flow", step_id="step", message_id="m", idempotency_key="k", push_assignment=True,
        context={"session_id": "s", "user_id": "u", "timestamp": 5, "x": {"y": [1.5, "z"]}, "retry": None},
        options={"estimate": {"tokens": 5}, "deadline_ms": 500, "explain": True, "meter": True},
    ),
    task_shape(options={"estimate": {"tokens": 0, "cost": None}, "retry": None, "priority": None, "explain": False},
        constraints=None, task={"type": "t", "payload": 2**64 - 1, "payload_ref": None}),
)  # fmt: skip
_API_KEYS = _json(
    {"keys": []},
    {
        "keys": [
            {
                "id": "00112233",
                "hash": "sha256:" + "ab" * 32,
                "principal": "p",
                "role": "caller",
                "tenants": ["a", "b"],
            },
            {"id": "00112244", "hash": "sha256:" + "cd" * 32, "principal": "q", "role": "admin", "tenants": ["*"]},
        ]
    },
)


def _api_keys(data: bytes) -> None:
    """What is read can be written, and is read again alike."""
    keys = decode_keys(data)
    assert decode_keys(encode_keys(keys)) == keys


TARGETS: dict[str, Target] = {
    "api_keys": Target(_api_keys, _API_KEYS, errors=(InvalidInput,)),
    "request_typed": Target(_typed, _json(*_USUAL), errors=(NotUsual,)),
    "decide_reply": Target(_decide_reply, _REPLIES, text=False),
    "settle_reply": Target(
        _settle_reply, (b"\0\1", b"\1", b"\1\1\2\3", b"\2why", b"\1" + _ANSWER % 65 + bytes(8)), text=False
    ),
    "puback": Target(
        puback.read,
        _json(
            {"stream": "ASSIGN", "seq": 1, "duplicate": True},
            {"error": {"code": 503, "err_code": 10_077, "description": "maximum messages exceeded"}},
        ),
    ),
    "nats_headers": Target(
        headers.decode, (b"NATS/1.0\r\nNats-Msg-Id: x\r\ntenant_id: acme\r\ntenant_id: b\r\n\r\n",), text=False
    ),
    "usage_event": Target(usage_identity, _json({"usage_id": ID, "timestamp": 1, "tenant_id": "acme"})),
    "key_kind": Target(
        lambda data: (kind_of_key(b"r1", data), kind_of(data)),
        (b"r1:{ab}:acme:head", b"r1{ab}" + b"n" * 10, b"r1:{ab}:~:task:x", b"sp:default"),
        text=False,
    ),
    "nats_status": Target(_status, (b"NATS/1.0 503 No Responders\r\n\r\n", b"NATS/1.0\r\n\r\n"), text=False),
    "dead_letter": Target(
        decode_dead_letter,
        _json({"original_subject": "s", "reason": "r", "error_code": "c", "received_at": 1, "payload": "e30="}),
    ),
    "alert": Target(
        decode_alert,
        _json({"alert_id": "a", "severity": "critical", "component": "c", "message": "m", "metadata": {"x": 1}}),
    ),
    "request": Target(
        _request, _json(task_shape(), task_shape(push_assignment=True, options={"deadline_ms": 5}), message_shape())
    ),
    "request_protobuf": Target(lambda data: _request(data, PROTOBUF), (_PROTOBUF_REQUEST,), text=False),
    "peek": Target(
        lambda data: (peek_tenant(data, None, None, protobuf=False), peek_tenant(data, None, None, protobuf=True)),
        (*_json(task_shape(), message_shape()), _PROTOBUF_REQUEST),
    ),
    "result": Target(_result, _RESULTS),
    "result_protobuf": Target(
        lambda data: _result(data, PROTOBUF),
        (ExecResult(assignment_id=ID, status="success", job=Job(type="t"), cost=0.5).SerializeToString(),),
        text=False,
    ),
    "ack": Target(lambda data: decode_ack(data, None), _ACKS),
    "ack_protobuf": Target(
        lambda data: decode_ack(data, PROTOBUF),
        (ExecAssignmentAck(assignment_id=ID, status="accepted").SerializeToString(),),
        text=False,
    ),
    "heartbeat": Target(
        decode_heartbeat,
        _json(
            {
                "version": "v1",
                "kind": "heartbeat",
                "data": {"worker_id": "w", "timestamp": "2026-01-01T00:00:00Z", "status": "idle", "load": 0.5},
            }
        ),
    ),
    "worker_dead_letter": Target(
        decode_worker_dead_letter,
        _json(
            {
                "version": "v1",
                "kind": "dead_letter",
                "data": {"reason": "PARSE_ERROR", "payload_ref": "x", "ts": "2026-01-01T00:00:00Z"},
            }
        ),
    ),
    "decision_query": Target(
        lambda data: decode_decision_query(data, None),
        _json({"tenant_id": "acme", "request_id": "r", "message_id": "m"}),
    ),
    "admin": Target(lambda data: decode_admin(data, None), _json({"tenant_id": "acme", "api_key": "k"}, {})),
    "extension": Target(
        _extension, _json({"payload": {"a": 1}, "metadata": {"b": "c"}}, {"valid": False, "reason": "r", "details": {}})
    ),
    "policy": Target(_policy, _json(_POLICY, _OLD_POLICY), errors=(InvalidInput,)),
    "state_file": Target(
        lambda data: gate.features_of(gate.parse(data)),
        _json({"project": "x", "current_cp": "CP2-LC", "updated_at": "2026-01-01T00:00:00Z"}),
    ),
    "assignment": Target(
        read_assignment,
        _json(
            {
                "version": "1",
                "assignment_id": ID,
                "request_id": "r",
                "tenant_id": "acme",
                "executor": {"provider_id": "p"},
                "job": {"type": "t", "payload": {"timeout_ms": 5}},
                "options": {"deadline_ms": 5},
            }
        ),
        errors=(msgspec.DecodeError,),
    ),
    "redaction": Target(
        lambda data: redacted(data.decode(errors="replace")),
        (b"nats://u:p@h:4222,nats://h2 rediss://:pw@h/0?password=x",),
    ),
    "job": Target(_job, (_dispatched(),), errors=(ValueError,)),
    "remembered": Target(
        _remembered,
        (
            _ANSWER % 65 + packing.tail_extras(None),
            _ANSWER % 9 + packing.tail_extras(packing.Extras(("pins",), unfinished=True)) + struct.pack(">d", 1e12),
            _ANSWER % 160 + packing.tail_extras(None) + b"mark-8.." + msgpack.encode({"a": 1}),
        ),
        text=False,
        errors=(packing.FormatError,),
    ),
    "head": Target(
        lambda data: packing.head("acme", data),
        (b"\x01\0\0\0\x07rand\0\0\2" + b"a" * 8 + b"\6" + b"b" * 8 + b"\7",),
        text=False,
        errors=(packing.FormatError,),
    ),
    "step": Target(packing.decided_ms, (struct.pack(">Bd", 1, 1e12),), text=False, errors=(packing.FormatError,)),
    "task_record": Target(
        records.task_record,
        (
            struct.pack(">BBBHdd16s8sBH", 1, 2, 1, 0, 1e12, 1e12, b"d" * 16, b"e" * 8, 1, len(_OFFER))
            + _OFFER
            + records.task_facts(_FACTS),
        ),
        text=False,
        errors=(packing.FormatError,),
    ),
    "final": Target(
        records.final_in, (records.final(Final("_INBOX.x", b"{}")),), text=False, errors=(packing.FormatError,)
    ),
    "breakers": Target(
        lambda data: breakers_in("acme", data), (b"\x01\0" + _BREAKER * 2,), text=False, errors=(packing.FormatError,)
    ),
    "figures": Target(snapshot, (struct.pack(">Bd8sdddd", 1, 1e12, b"e" * 8, 1.0, 2.0, 3.0, 4.0),), text=False),
    "extension_record": Target(
        lambda data: record("pre.x", data),
        (b"\1\1" + bytes(_EXTENSION + 40),),
        text=False,
        errors=(packing.FormatError,),
    ),
    "audit": Target(
        _entry,
        (
            struct.pack(">BBdd16sBBdB", 1, 9, 1e12, 1.0, b"d" * 16, 0, 0, -1.0, 0) + _OF_TASK,
            struct.pack(">BBdd16sBBdB", 1, 2, 1e12, 1.0, b"d" * 16, 3, 0, 1.0, 0) + _OF_DECISION,
            struct.pack(">BBdd16sBBdB", 2, 1, 1e12, 1.0, b"d" * 16, 3, 0, 1.0, 1)
            + b"\1"  # its verdict; then what the row saw, and no offer
            + struct.pack(">H", 11)
            + bytes(12)
            + _OF_DECISION,
            struct.pack(">BBdd8s16s", 2, 13, 1e12, 1.0, b"e" * 8, b"d" * 16) + _OF_DECISION,
            struct.pack(">BBddII", 1, 22, 1e12, 1.0, 0, 0) + _OF_ACT,
        ),
        text=False,
        errors=(packing.FormatError,),
    ),
}
