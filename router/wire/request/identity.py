"""The tenant of a request, and its ids."""

import re
from collections.abc import Mapping
from os import urandom

from router.domain.decide.decision import Intake
from router.domain.decide.request import NO_CORRELATION, Correlation
from router.domain.defects import Defect
from router.domain.ids import to_text
from router.domain.json import JsonObject
from router.wire.fields import MAX_ID_CHARS, MAX_TRACE_ID_CHARS, identifier, text, text_unless_empty
from router.wire.headers import is_garbled, traceparent_of
from router.wire.parse import HALF
from router.wire.problems import Problems
from router.wire.request.shapes import RequestedTask

_uuid = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_ulid = re.compile(r"[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}").fullmatch
_w3c_trace = re.compile(r"[0-9a-f]{32}").fullmatch
KEY_HEADERS = frozenset(("idempotency-key", "idempotency_key"))
_NAME_TENANT = "send tenant_id in the body, or name the tenant in the header tenant_id or in the subject"
_CORRELATION = Intake.CORRELATION_FIELDS_INVALID


def new_request_id() -> str:
    """Make a random UUID text for a request without an id."""
    raw = bytearray(urandom(16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    return to_text(bytes(raw))


def tenant_of(body: object, inner: object, headers: Mapping[str, str], subject: str | None, problems: Problems) -> str:
    """Return the tenant on which subject, header, body and message agree; "" after adding the problem."""
    if (
        (subject is None or (subject == body and fits_subject(subject)))
        and (inner is None or inner == body)
        and (not headers or headers.get("tenant_id", body) == body)
    ):
        tenant = identifier(problems, "tenant_id", body)
        if body is None:
            problems.add("tenant_id", message="is missing", hint=_NAME_TENANT)
        return tenant or ""
    problems_before = len(problems)
    tenant = agreed_tenant(body, headers, subject, problems, inner)
    if tenant is None and len(problems) == problems_before:
        problems.add("tenant_id", message="is missing", hint=_NAME_TENANT)
    return tenant or ""


def agreed_tenant(
    body: object, headers: Mapping[str, str], subject: str | None, problems: Problems, inner: object = None
) -> str | None:
    """Return the tenant on which subject, header, body and message agree; None: none of them names one.

    `subject` is the part of the subject that names the tenant. Tenants that differ are a problem.
    """
    if subject is not None and not fits_subject(subject):
        problems.add("subject", message="has a tenant with an empty part", hint="name the tenant without empty parts")
        subject = None
    named_tenants = (
        identifier(problems, "subject", subject),
        identifier(problems, "tenant_id", body),
        identifier(problems, "message.tenant_id", inner),
        identifier(problems, "header tenant_id", headers.get("tenant_id")),
    )
    tenants = {t for t in named_tenants if t is not None}
    if len(tenants) > 1:
        problems.add(
            "tenant_id",
            message="differs between subject, header and body",
            hint="send one tenant, in one place",
            intake=Intake.TENANT_FORBIDDEN,
        )
    return next((t for t in named_tenants if t is not None), None)


def fits_subject(tenant: str) -> bool:
    """Whether a tenant can be a part of a subject."""
    return tenant != "" and tenant[0] != "." and tenant[-1] != "." and ".." not in tenant


def correlation_of(ids: JsonObject, headers: Mapping[str, str], problems: Problems) -> Correlation:
    """Read the correlation ids from the body; trace_id and traceparent also from the headers, which win."""
    get = ids.get
    if (trace_id := get("trace_id")) is not None:
        trace_id = text_unless_empty(problems, "trace_id", trace_id, MAX_TRACE_ID_CHARS, _CORRELATION)
    if (run_id := get("run_id")) is not None:
        run_id = text_unless_empty(problems, "run_id", run_id, MAX_ID_CHARS, _CORRELATION)
    if (flow_id := get("flow_id")) is not None:
        flow_id = text_unless_empty(problems, "flow_id", flow_id, MAX_ID_CHARS, _CORRELATION)
    if (step_id := get("step_id")) is not None:
        step_id = text_unless_empty(problems, "step_id", step_id, MAX_ID_CHARS, _CORRELATION)
    traceparent = None
    if headers:
        if (sent := headers.get("trace_id")) is not None and sent != trace_id:
            trace_id = _trace_of_header(sent, trace_id, problems)
        traceparent = traceparent_of(headers)
    elif trace_id is None and run_id is None and flow_id is None and step_id is None:
        return NO_CORRELATION
    return Correlation(trace_id, run_id, flow_id, step_id, traceparent)


def _trace_of_header(sent: str, body: str | None, problems: Problems) -> str | None:
    """Return the trace_id of the header, or else of the body: a gateway's header must not cost the request its own."""
    refused = Problems()
    trace_id = text(refused, "header trace_id", sent, MAX_TRACE_ID_CHARS, _CORRELATION)
    if trace_id is not None and not is_garbled(sent):
        return trace_id
    if body is None and refused and not is_garbled(sent):
        problems.extend(refused)
    else:
        problems.warn(Defect.HEADER_DROPPED, "header trace_id", text="is not a trace id: dropped")
    return body


def idempotency_key_of(key: object, headers: Mapping[str, str], problems: Problems) -> str | None:
    """Read the idempotency key from the body or a header; different keys are a problem."""
    found = text(problems, "idempotency_key", key, MAX_ID_CHARS, Intake.IDEMPOTENCY_VIOLATION)
    for header in KEY_HEADERS:
        if (sent := headers.get(header)) is None:
            continue
        if is_garbled(sent):
            problems.add(
                f"header {header}",
                message="is not UTF-8",
                hint="send the key in UTF-8",
                intake=Intake.IDEMPOTENCY_VIOLATION,
            )
            continue
        sent_key = text(problems, f"header {header}", sent, MAX_ID_CHARS, Intake.IDEMPOTENCY_VIOLATION)
        if found is not None and sent_key is not None and found != sent_key:
            problems.add(
                "idempotency_key",
                message="differs between headers, or header and body",
                hint="send one key, in one place",
                intake=Intake.IDEMPOTENCY_VIOLATION,
            )
        found = found if sent_key is None else sent_key
    return found


def check_whole_ids(request_id: str | None, message_id: str | None, key: str | None, problems: Problems) -> None:
    """Refuse ids of a repaired body that hold U+FFFD: different ids could have become equal."""
    own_id = None if request_id is message_id else request_id
    for field, value in (("request_id", own_id), ("message_id", message_id), ("idempotency_key", key)):
        if value is not None and HALF in value:
            problems.add(
                field, message="has half a character", hint="send whole characters", intake=Intake.IDEMPOTENCY_VIOLATION
            )


def check_strict_ids(request_id: str | None, work: RequestedTask, correlation: Correlation, problems: Problems) -> None:
    """Check the ids for ROUTER_STRICT_CORRELATION: UUIDs or ULIDs, and run, flow and step together."""
    c = correlation
    ids = (
        ("request_id", request_id),
        ("message_id", work.message_id if type(work.message_id) is str else None),
        ("run_id", c.run_id),
        ("flow_id", c.flow_id),
        ("step_id", c.step_id),
        ("trace_id", None if c.trace_id is not None and _w3c_trace(c.trace_id) else c.trace_id),
    )
    for field, value in ids:
        if value is not None and not _uuid(value) and not _ulid(value):
            problems.add(field, message="is not a UUID or a ULID", hint="send a UUID or a ULID", intake=_CORRELATION)
    run_ids = (c.run_id, c.flow_id, c.step_id)
    if any(v is None for v in run_ids) and any(v is not None for v in run_ids):
        problems.add(
            "run_id",
            message="needs flow_id and step_id, and they need it",
            hint="send all three or none",
            intake=_CORRELATION,
        )
