"""Who asks, and under which ids."""

import re
from collections.abc import Mapping
from os import urandom

from router.domain.decision import Intake
from router.domain.ids import to_text
from router.domain.json import JsonObject
from router.domain.request import NO_CORRELATION, Correlation
from router.wire.fields import LONGEST_ID, LONGEST_TRACE_ID, loose_text, name, text
from router.wire.headers import traceparent_of
from router.wire.problems import Problems, named
from router.wire.shapes import Work

_uuid = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_ulid = re.compile(r"[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}").fullmatch
_w3c_trace = re.compile(r"[0-9a-f]{32}").fullmatch
_CORRELATION = Intake.CORRELATION_FIELDS_INVALID


def new_request_id() -> str:
    """A random UUID text, for a request that came without any id."""
    raw = bytearray(urandom(16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    return to_text(bytes(raw))


def tenant_of(body: object, inner: object, head: Mapping[str, str], subject: str | None, found: Problems) -> str:
    """The one tenant that subject, header, body and message agree on; "" after noting why there is none."""
    if (
        (subject is None or (subject == body and _fits_subject(subject)))
        and (inner is None or inner == body)
        and (not head or head.get("tenant_id", body) == body)
    ):
        tenant = name(found, "tenant_id", body)
        if body is None:
            found.add("tenant_id", "is missing", "name the tenant")
        return tenant or ""
    noted = len(found)
    if subject is not None and not _fits_subject(subject):
        found.add("subject", "its tenant has a bad form", "beamline.router.v1.decide.<tenant>, without empty parts")
        subject = None
    told = (
        name(found, "subject", subject),
        name(found, "tenant_id", body),
        name(found, "message.tenant_id", inner),
        name(found, "header tenant_id", head.get("tenant_id")),
    )
    tenants = {t for t in told if t is not None}
    if len(tenants) > 1:
        found.add(
            "tenant_id",
            "subject, header and body name different tenants",
            "name one tenant, once",
            Intake.TENANT_FORBIDDEN,
        )
    elif not tenants and len(found) == noted:
        found.add("tenant_id", "is missing", "name the tenant")
    return next((t for t in told if t is not None), "")


def _fits_subject(tenant: str) -> bool:
    return tenant != "" and tenant[0] != "." and tenant[-1] != "." and ".." not in tenant


def correlation_of(ids: JsonObject, head: Mapping[str, str], found: Problems) -> Correlation:
    """The ids that travel along; the trace also from the headers."""
    get = ids.get
    if (trace_id := get("trace_id")) is not None:
        trace_id = loose_text(found, "trace_id", trace_id, LONGEST_TRACE_ID, _CORRELATION)
    if (run_id := get("run_id")) is not None:
        run_id = loose_text(found, "run_id", run_id, LONGEST_ID, _CORRELATION)
    if (flow_id := get("flow_id")) is not None:
        flow_id = loose_text(found, "flow_id", flow_id, LONGEST_ID, _CORRELATION)
    if (step_id := get("step_id")) is not None:
        step_id = loose_text(found, "step_id", step_id, LONGEST_ID, _CORRELATION)
    traceparent = None
    if head:
        if trace_id is None:
            trace_id = text(found, "header trace_id", head.get("trace_id"), LONGEST_TRACE_ID, _CORRELATION)
        traceparent = traceparent_of(head)
    elif trace_id is None and run_id is None and flow_id is None and step_id is None:
        return NO_CORRELATION
    return Correlation(trace_id, run_id, flow_id, step_id, traceparent)


def idempotency_key_of(key: object, head: Mapping[str, str], found: Problems) -> str | None:
    """The caller's key from the body or the header; two different ones are refused."""
    own = text(found, "idempotency_key", key, LONGEST_ID, Intake.IDEMPOTENCY_VIOLATION)
    other = text(found, "header idempotency-key", head.get("idempotency-key"), LONGEST_ID, Intake.IDEMPOTENCY_VIOLATION)
    if own is not None and other is not None and own != other:
        found.add(
            "idempotency_key",
            "header and body name different keys",
            "name one key, once",
            Intake.IDEMPOTENCY_VIOLATION,
        )
    return other if own is None else own


def insist(request_id: str | None, work: Work, correlation: Correlation, found: Problems) -> None:
    """ROUTER_STRICT_CORRELATION: ids are UUIDs or ULIDs, and run, flow and step come together."""
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
            found.add(field, f"is {named(value)} of another form", "a UUID or a ULID", _CORRELATION)
    trio = (c.run_id, c.flow_id, c.step_id)
    if any(v is None for v in trio) and any(v is not None for v in trio):
        found.add("run_id", "run_id, flow_id and step_id come together", "give all three or none", _CORRELATION)
