from typing import Any

import pytest

from router.domain.decide.decision import Code
from tests.wire.examples import accepted, intake, message_shape, paths, refused, task_shape


def test_a_task_is_read_whole() -> None:
    """Every field of the task shape finds its place, costs become micro-USD."""
    r = accepted(
        task_shape(
            constraints={"max_latency_ms": 2000, "max_cost": 0.02},
            metadata={"team": "red"},
            idempotency_key="k-1",
            run_id="run",
            flow_id="flow",
            step_id="step",
            push_assignment=True,
            assignment_subject="caf.exec.gpu.v1",
            options={
                "estimate": {"tokens": 100, "cost": 0.0005},
                "deadline_ms": 9000,
                "retry": {"max_attempts": 3, "backoff_ms": 50},
                "priority": "high",
                "result_subject": "_INBOX.abc.1",
                "explain": True,
                "meter": True,
            },
        )
    )
    assert (r.tenant_id, r.request_id, r.policy_id, r.task_type) == ("acme", "r-1", "default", "chat")
    assert r.payload == {"text": "hello"}
    assert (r.user_id, r.idempotency_key, r.metadata) == ("u-1", "k-1", {"team": "red"})
    assert (r.constraints.max_latency_ms, r.constraints.max_cost_microusd) == (2000, 20_000)
    assert (r.options.estimate_tokens, r.options.estimate_cost_microusd, r.options.deadline_ms) == (100, 500, 9000)
    assert (r.options.max_attempts, r.options.backoff_ms, r.options.priority) == (3, 50, "high")
    assert (r.options.result_subject, r.options.explain, r.options.meter) == ("_INBOX.abc.1", True, True)
    assert (r.push_assignment, r.assignment_subject) == (True, "caf.exec.gpu.v1")
    c = r.correlation
    assert (c.trace_id, c.run_id, c.flow_id, c.step_id) == ("t-1", "run", "flow", "step")


def test_an_empty_message_is_unknown_work() -> None:
    """A gateway may forward `message: {}`: task type unknown, payload {}."""
    r = accepted({"version": "1", "tenant_id": "acme", "request_id": "r", "message": {}})
    assert (r.task_type, r.payload, r.policy_id) == ("unknown", {}, "default")


def test_a_message_may_hold_the_ids() -> None:
    """Correlation ids and the message id are found inside the message too."""
    r = accepted({"version": "1", "tenant_id": "a", "message": {"message_id": "m", "trace_id": "t", "run_id": "x"}})
    assert (r.request_id, r.message_id, r.correlation.trace_id, r.correlation.run_id) == ("m", "m", "t", "x")


def test_input_needs_no_version_and_takes_its_message_id() -> None:
    """An IPC bridge sends neither version nor request_id."""
    doc = {"from": "ide", "to": "router", "message_id": "m-9", "tenant_id": "acme", "policy_id": "p", "input": "hi"}
    r = accepted(doc)
    assert (r.request_id, r.policy_id, r.payload, r.task_type) == ("m-9", "p", "hi", "unknown")
    assert r.metadata == {"from": "ide", "to": "router"}


def test_task_goes_before_message_and_input() -> None:
    """A document of several shapes is read as the first of task, message, input."""
    r = accepted(task_shape(message={"message_type": "m"}, input="i"))
    assert r.task_type == "chat"
    assert accepted(message_shape(input="i", task=None)).payload == {"text": "hello"}


def test_a_request_without_ids_gets_one() -> None:
    """No request_id and no message_id: a new one, and another one next time."""
    first, second = (accepted(task_shape(request_id=None)) for _ in range(2))
    assert first.request_id != second.request_id
    assert len(first.request_id) == 36


def test_all_problems_come_at_once() -> None:
    """Three mistakes, three problems with their paths, one refusal that keeps the good ids."""
    answer = refused(task_shape(tenant_id="no tenant", task={"type": 5}, context={"user_id": []}))
    assert paths(answer) == ["task.type", "tenant_id", "context.user_id"]
    assert answer.refused.code is Code.INVALID_REQUEST
    assert (answer.request_id, answer.trace_id) == ("r-1", "t-1")


def test_a_missing_tenant_is_told_beside_other_problems() -> None:
    """Also when headers came along."""
    assert paths(refused(task_shape(tenant_id=None, task={}), {"version": "1"})) == ["task.type", "tenant_id"]


def test_what_a_good_request_is_refused_for_last_is_told_beside_other_problems() -> None:
    """The fleet's bound on deadlines, what is nested too deep, and a pushed payload over 64 KiB."""
    deep = b"[" * 300 + b"]" * 300
    head = b'{"version":"1","tenant_id":"a","request_id":"r","policy_id":"?",'
    late = head + b'"task":{"type":"t"},"options":{"deadline_ms":1001}}'
    assert paths(refused(late, max_deadline_ms=1000)) == ["policy_id", "options.deadline_ms"]
    assert paths(refused(head + b'"task":{"type":"t"},"metadata":{"a":' + deep + b"}}")) == ["policy_id", "metadata"]
    assert paths(refused(head + b'"task":{"type":"t","payload":' + deep + b"}}")) == ["policy_id", ""]
    large = head + b'"task":{"type":"t","payload":"' + b"x" * 65535 + b'"}'
    answer = refused(large + b',"push_assignment":true}')
    assert (paths(answer), intake(answer)) == (["policy_id", "task.payload"], "PAYLOAD_TOO_LARGE")
    assert paths(refused(large + b"}")) == ["policy_id"]


NOT_EVEN_EMPTY = [5, 1.5, True, [], {}]
NOT_A_STRING = [*NOT_EVEN_EMPTY, ""]
NOT_A_WHOLE = ["5", True, 1.5, -1, 2**40, [], {}]
NOT_AN_AMOUNT = ["0.1", True, -0.01, 1e9, [], {}]
NOT_A_FLAG = ["yes", 1, 0, [], ""]


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("tenant_id", [*NOT_A_STRING, "a b", "a/b", "ä", "a" * 256, "a\n", "~"]),
        ("policy_id", [*NOT_A_STRING, "a b", "a" * 256]),
        ("request_id", [*NOT_A_STRING, "a" * 257, "a\x00b", "a\nb", "\x7f", "\x85"]),
        ("trace_id", [*NOT_EVEN_EMPTY, "a" * 129, "a\tb"]),
        ("run_id", [*NOT_EVEN_EMPTY, "a" * 257]),
        ("idempotency_key", [*NOT_A_STRING, "a" * 257, "\x01"]),
        ("task", ["chat", 5, [], True, ""]),
        ("task.type", [*NOT_A_STRING, "\x00"]),
        ("task.payload_ref", [*NOT_A_STRING, "a" * 2049]),
        ("metadata", ["a", 5, [], True]),
        ("context", ["a", 5, [], True]),
        ("context.user_id", [1.5, 2.0**53, True, [], {}]),
        ("context.session_id", [1.5, 1e300, True, [], {}]),
        ("context.current_provider", [*NOT_EVEN_EMPTY, "a\x1fb"]),
        ("context.status", [True, [], {}, 1.5]),
        ("context.retry_attempts", [True, [], "x", -1, 1.5]),
        ("constraints", ["a", 5, [], True]),
        ("constraints.max_latency_ms", [*NOT_A_WHOLE, 0]),
        ("constraints.max_cost", NOT_AN_AMOUNT),
        ("options", ["a", 5, [], True]),
        ("options.estimate", ["a", 5, [], True]),
        ("options.estimate.tokens", NOT_A_WHOLE),
        ("options.estimate.cost", NOT_AN_AMOUNT),
        ("options.deadline_ms", [*NOT_A_WHOLE, 0]),
        ("options.retry", ["a", 5, [], True]),
        ("options.retry.max_attempts", [*NOT_A_WHOLE, 0, 256]),
        ("options.retry.backoff_ms", NOT_A_WHOLE),
        ("options.priority", [True, [], {}, "", "x" * 65]),
        ("options.explain", [*NOT_A_FLAG, "true"]),
        ("options.meter", [*NOT_A_FLAG, "true"]),
        ("options.result_subject", [*NOT_A_STRING, "orders.new", "_INBOX.*", "_INBOX.a.>", "_INBOX..a", "_INBOX.a b"]),
        ("push_assignment", ["yes", 2, 0.5, -1, [], {}, ""]),
        (
            "assignment_subject",
            [
                *NOT_A_STRING,
                "orders.new",
                "caf.exec.result.v1",
                "caf.exec.assigned.v1",
                "caf.exec.assign.v1.ack",
                "caf.exec.x.ack",
                "caf.exec.x.dlq",
                "caf.exec.*",
                "caf.exec.>",
                "caf.exec.",
                "caf.exec.a..b",
                "caf.exec.a b",
            ],
        ),
    ],
)
def test_a_bad_value_is_refused_at_its_path(path: str, values: list[Any]) -> None:
    """One bad field, one problem, which names that field."""
    for value in values:
        doc = task_shape(options={"retry": {}, "estimate": {}}, constraints={})
        *outer, last = path.split(".")
        target = doc
        for part in outer:
            target = target[part]
        if path == "task.payload_ref":
            del target["payload"]
        target[last] = value
        assert paths(refused(doc)) == [path], value


@pytest.mark.parametrize("field", ["tenant_id", "task.type"])
def test_what_is_needed_is_named_when_missing(field: str) -> None:
    """A missing field is a problem at its own path."""
    doc = task_shape(task={}) if field == "task.type" else task_shape(tenant_id=None)
    assert paths(refused(doc)) == [field]


def test_no_shape_at_all_is_told() -> None:
    """Neither task nor message nor input: one problem for the whole."""
    assert paths(refused(task_shape(task=None))) == [""]


@pytest.mark.parametrize("version", [1, "2", "1.0", "", None, True])
def test_the_version_must_be_the_string_1(version: object) -> None:
    """Anything else is VERSION_UNSUPPORTED."""
    answer = refused(task_shape(version=version))
    assert (intake(answer), paths(answer)) == ("VERSION_UNSUPPORTED", ["version"])


def test_a_version_header_stands_in_and_may_not_differ() -> None:
    """The header alone is enough; another one than 1 is refused in every shape."""
    assert accepted(task_shape(version=None), {"version": "1"}).request_id == "r-1"
    assert intake(refused(task_shape(), {"version": "2"})) == "VERSION_UNSUPPORTED"
    assert intake(refused({"tenant_id": "a", "input": 1}, {"version": "2"})) == "VERSION_UNSUPPORTED"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"\xff\xfe{}", "UTF-8"),
        (b'{"a": "\xc3"}', "UTF-8"),
        (b"[1]", "array"),
        (b'"text"', "string"),
        (b"null", "null"),
        (b"{", "JSON"),
        (b'{"version":"1","tenant_id":"a","task":{"type":"t","payload":NaN}}', "JSON"),
        (b'{"version":"1","tenant_id":"a","task":{"type":"t","payload":1e999}}', "JSON"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "deep"),
    ],
)
def test_garbage_is_told_apart(body: bytes, says: str) -> None:
    """Each kind of garbage gets a message of its own, and no ids."""
    answer = refused(body)
    assert says in answer.refused.message
    assert intake(answer) == "SCHEMA_VALIDATION_FAILED"
    assert answer.request_id is None


@pytest.mark.parametrize("field", ["payload", "context", "metadata"])
def test_nesting_stops_where_it_could_not_be_written_again(field: str) -> None:
    """250 levels pass, 260 are refused, whichever field they are in."""

    def nested(depth: int) -> bytes:
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        rest = {
            "payload": b'"task":{"type":"t","payload":' + deep + b"}",
            "context": b'"task":{"type":"t"},"context":' + deep,
            "metadata": b'"task":{"type":"t"},"metadata":' + deep,
        }[field]
        return b'{"version":"1","tenant_id":"a","request_id":"r",' + rest + b"}"

    assert accepted(nested(250)).request_id == "r"
    answer = refused(nested(260))
    assert "deep" in answer.refused.message
    assert answer.request_id == "r"


def test_a_large_body_is_not_even_read() -> None:
    """2 MiB: PAYLOAD_TOO_LARGE."""
    answer = refused(b"x" * (2 << 20))
    assert (intake(answer), answer.refused.code) == ("PAYLOAD_TOO_LARGE", Code.INVALID_REQUEST)


def test_one_mebibyte_is_read() -> None:
    """The bound itself is allowed."""
    frame = len(b'{"version":"1","tenant_id":"a","request_id":"r","input":""}')
    body = b'{"version":"1","tenant_id":"a","request_id":"r","input":"' + b"x" * ((1 << 20) - frame) + b'"}'
    assert len(body) == 1 << 20
    assert accepted(body).request_id == "r"


FIELDS = [
    ("version", '"2"', '"1"'),
    ("tenant_id", "5", '"acme"'),
    ("request_id", '"\\u0000"', '"r-1"'),
    ("task", '"x"', '{"type":"chat"}'),
    ("policy_id", "5", '"p"'),
    ("constraints", "5", '{"max_cost":1}'),
    ("metadata", "5", "{}"),
    ("context", "5", "{}"),
    ("trace_id", "5", '"t"'),
    ("run_id", "5", '"t"'),
    ("flow_id", "5", '"t"'),
    ("step_id", "5", '"t"'),
    ("idempotency_key", "5", '"k"'),
    ("push_assignment", "5", "true"),
    ("assignment_subject", "5", '"caf.exec.x"'),
    ("options", "5", "{}"),
]


@pytest.mark.parametrize(("field", "bad", "good"), FIELDS)
def test_of_duplicate_keys_the_last_one_wins(field: str, bad: str, good: str) -> None:
    """Bad then good is accepted, good then bad is refused, for every field."""
    rest = [(f, g) for f, _, g in FIELDS if f != field]

    def body(*values: str) -> bytes:
        return ("{" + ",".join(f'"{f}":{v}' for f, v in [*rest, *((field, v) for v in values)]) + "}").encode()

    assert accepted(body(bad, good)).tenant_id == "acme"
    assert paths(refused(body(good, bad))) == [field]


@pytest.mark.parametrize(
    "text",
    [
        '"version":"1","message":5,"message":{"message_type":5,"message_type":"chat","payload":5,"payload":{"a":1,"a":2}}',
        '"message_id":5,"message_id":"m-1","input":5,"input":{"a":1,"a":2}',
    ],
)
def test_of_duplicate_keys_the_last_one_wins_in_the_other_shapes(text: str) -> None:
    """At every depth, the payload's own keys too."""
    assert accepted(('{"tenant_id":"acme",' + text + "}").encode()).payload == {"a": 2}


@pytest.mark.parametrize(("number", "meant"), [(2**64 - 1, 2**64 - 1), (-(2**63), -(2**63)), (10**22, 1e22)])
def test_a_whole_number_beyond_64_bits_is_a_float(number: int, meant: float) -> None:
    """As documented; up to 64 bits every digit is kept."""
    data = b'{"version":"1","tenant_id":"acme","task":{"type":"t","payload":%d}}' % number
    payload = accepted(data).payload
    assert (type(payload), payload) == (type(meant), meant)


def test_null_is_absent() -> None:
    """An encoder that writes null for what it does not have is understood."""
    bare = task_shape(context=None, trace_id=None)
    nulls = bare | dict.fromkeys(("context", "trace_id", "run_id", "options", "constraints", "metadata"))
    assert accepted(nulls) == accepted(bare)


@pytest.mark.parametrize(
    ("headers", "subject", "body"),
    [
        ({"tenant_id": "other"}, None, "acme"),
        (None, "other", "acme"),
        ({"tenant_id": "acme"}, "other", "acme"),
        ({"tenant_id": "acme"}, "other", None),
    ],
)
def test_two_tenants_are_refused(headers: dict[str, str] | None, subject: str | None, body: str | None) -> None:
    """Header, subject and body must name one tenant: unauthorized, TENANT_FORBIDDEN."""
    answer = refused(task_shape(tenant_id=body), headers, subject)
    assert (answer.refused.code, intake(answer)) == (Code.UNAUTHORIZED, "TENANT_FORBIDDEN")


def test_a_message_with_another_tenant_is_refused() -> None:
    """The tenant inside the message counts as a source too."""
    assert intake(refused(message_shape(message={"tenant_id": "other"}))) == "TENANT_FORBIDDEN"


def test_the_subject_or_the_header_is_enough() -> None:
    """A body without a tenant is completed by the subject, or by the header."""
    assert accepted(task_shape(tenant_id=None), None, "a.b").tenant_id == "a.b"
    assert accepted(task_shape(tenant_id=None), {"Tenant_Id": "acme"}).tenant_id == "acme"


@pytest.mark.parametrize("tenant", [".a", "a.", "a..b", "", "a b", "*"])
def test_a_bad_tenant_in_the_subject_is_refused(tenant: str) -> None:
    """Tenants that start or end with a dot, or hold two in a row, cannot use this form."""
    assert paths(refused(task_shape(tenant_id=None), None, tenant)) == ["subject"]


def test_an_empty_text_is_as_absent() -> None:
    """Where encoders write every field: correlation ids, what is known of the caller, a message's own; all headers."""
    ids = {"trace_id": "", "run_id": "", "flow_id": "", "step_id": ""}
    caller = {"session_id": "", "user_id": "", "status": "", "current_provider": "", "ip_address": ""}
    heads = ("tenant_id", "trace_id", "version", "idempotency-key", "x-client-ip", "traceparent")
    plain = accepted(task_shape(trace_id=None, context={"other": ""}))
    assert accepted(task_shape(**ids, context=caller | {"other": ""}), dict.fromkeys(heads, "")) == plain
    assert accepted(task_shape(trace_id=""), {"trace_id": "t"}).correlation.trace_id == "t"
    message = {"message_id": "", "message_type": "", "payload": {"text": "hello"}, **ids}
    r = accepted(message_shape(message=message, **ids))
    assert (r.request_id, r.message_id, r.task_type, r.correlation) == ("r-2", None, "unknown", plain.correlation)
    assert accepted(message_shape(message={"trace_id": "t"}, trace_id="")).correlation.trace_id == "t"


def test_headers_give_trace_key_address_and_traceparent() -> None:
    """What the body does not say is read from the headers, whatever their case."""
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"Trace_Id": "t", "Idempotency-Key": "k", "X-Client-IP": "2001:DB8::1", "Traceparent": parent}
    r = accepted(task_shape(trace_id=None), headers)
    assert (r.correlation.trace_id, r.idempotency_key, r.client_ip) == ("t", "k", "2001:db8::1")
    assert r.correlation.traceparent == parent


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    "sent",
    [
        "nonsense",
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_a_bad_traceparent_is_as_good_as_none(sent: str) -> None:
    """W3C: an invalid traceparent must not fail the request, and is not passed on."""
    assert accepted(task_shape(), {"traceparent": sent}).correlation.traceparent is None


def test_two_idempotency_keys_are_refused() -> None:
    """Header and body may not name different keys."""
    answer = refused(task_shape(idempotency_key="a"), {"idempotency-key": "b"})
    assert (intake(answer), answer.refused.code) == ("IDEMPOTENCY_VIOLATION", Code.INVALID_REQUEST)


def test_the_gateways_address_wins() -> None:
    """x-client-ip is what the gateway saw; context.ip_address is what the client says."""
    assert (
        accepted(task_shape(context={"ip_address": "10.0.0.1"}), {"x-client-ip": "192.0.2.7"}).client_ip == "192.0.2.7"
    )
    assert accepted(task_shape(context={"ip_address": "10.0.0.1"})).client_ip == "10.0.0.1"


def test_payload_and_reference_exclude_each_other() -> None:
    """A reference alone has no payload; both are refused; an empty payload beside it is none."""
    assert accepted(task_shape(task={"type": "t", "payload_ref": "s3://x"})).payload is None
    assert accepted(task_shape(task={"type": "t", "payload_ref": "s3://x", "payload": {}})).payload is None
    assert paths(refused(task_shape(task={"type": "t", "payload_ref": "x", "payload": {"a": 1}}))) == ["task.payload"]


def test_the_fallback_step_is_read() -> None:
    """status (a number too), current_provider, and every retry_attempts* make the step."""
    context = {"status": 503, "current_provider": "p1", "retry_attempts": 1, "retry_attempts_p2": "2"}
    step = accepted(task_shape(context=context)).step
    assert (step.status, step.current_provider, step.retry_attempts) == ("503", "p1", 3)
    assert accepted(task_shape()).step.key == ""


def test_result_subjects_may_be_allowed_by_prefix() -> None:
    """Beside `_INBOX.`, only the configured prefixes."""
    doc = task_shape(options={"result_subject": "results.acme.1"})
    assert accepted(doc, result_prefixes=("results.",)).options.result_subject == "results.acme.1"
    assert paths(refused(doc, result_prefixes=("other.",))) == ["options.result_subject"]


UUID = "8b0f1f2e-6b1f-4c6e-9a50-0a3e0f6f2b11"
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def test_a_lone_run_id_is_fine_unless_strict() -> None:
    """ROUTER_STRICT_CORRELATION wants run, flow and step together."""
    doc = task_shape(request_id=UUID, trace_id=None, run_id=ULID)
    assert accepted(doc).correlation.run_id == ULID
    answer = refused(doc, strict=True)
    assert (intake(answer), paths(answer)) == ("CORRELATION_FIELDS_INVALID", ["run_id"])
    assert accepted(doc | {"flow_id": UUID, "step_id": UUID}, strict=True).request_id == UUID


def test_strict_wants_uuids_or_ulids() -> None:
    """Every id that is given; a W3C trace id of 32 hex digits is fine too."""
    assert paths(refused(task_shape(), strict=True)) == ["request_id", "trace_id"]
    assert accepted(task_shape(request_id=UUID, trace_id="4bf92f3577b34da6a3ce929d0e0e4736"), strict=True).tenant_id


def test_problems_are_bounded_and_repeat_no_value() -> None:
    """Many mistakes with long names: at most 50 are listed, none longer than 128, no value in sight."""
    context = {f"retry_attempts{'x' * 300}{i}": "secret-value" for i in range(80)}
    answer = refused(task_shape(context=context))
    assert len(paths(answer)) == 50
    assert answer.refused.details["truncated"] is True
    assert all(len(p) <= 128 for p in paths(answer))
    assert "secret" not in str(answer)


def test_unknown_fields_are_passed_over() -> None:
    """A gateway's extra fields do no harm."""
    assert accepted(task_shape(extra=1, options={"new_thing": 1})) == accepted(task_shape(options={}))


@pytest.mark.parametrize(
    "parent", ["caf.exec.result.v1", "caf.exec.assign.v1.ack", "caf.exec.assigned.v1", "caf.exec.cancel.v1"]
)
def test_subjects_of_the_router_and_all_below_take_no_work(parent: str) -> None:
    """Results, acks, events and cancellations, also those of a tenant; names that only begin alike do."""
    for subject in (parent, f"{parent}.x", f"{parent}.tenant.acme", f"{parent}.a.b.c"):
        assert paths(refused(task_shape(assignment_subject=subject))) == ["assignment_subject"]
    for subject in (f"{parent}x", f"{parent[:-1]}2", f"{parent}-gpu.x"):
        assert accepted(task_shape(assignment_subject=subject)).assignment_subject == subject


@pytest.mark.parametrize("subject", ["caf.exec.assign.v1.gpu", "caf.exec.assign.v1.tenant.acme", "caf.exec.gpu"])
def test_subjects_below_the_usual_one_take_work(subject: str) -> None:
    """`caf.exec.assign.v1.gpu` and alike."""
    assert accepted(task_shape(assignment_subject=subject)).assignment_subject == subject
