"""The request of `get_decision`."""

from collections.abc import Mapping

from msgspec import Struct

from router.domain.defects import Warnings
from router.domain.ids import from_text
from router.wire.body import MAX_QUERY_BYTES, read_object
from router.wire.fields import text
from router.wire.headers import with_lower_names
from router.wire.parse import parse_request
from router.wire.problems import Problems, Rejected, named
from router.wire.request.identity import agreed_tenant, check_whole_ids


class DecisionQuery(Struct, frozen=True):
    """The ids of the requested decision. decision_id is 16 bytes.

    The first of decision_id, idempotency_key, request_id and message_id that is set counts. `tenant_id` is None only
    together with a message_id.
    """

    tenant_id: str | None
    decision_id: bytes | None = None
    idempotency_key: str | None = None
    request_id: str | None = None
    message_id: str | None = None
    trace_id: str | None = None
    warnings: Warnings = ()


def decode_decision_query(
    data: bytes, headers: Mapping[str, str] | None, subject_tenant: str | None = None
) -> DecisionQuery | Rejected:
    """Decode a `get_decision` request. Never raises, whatever the bytes.

    `subject_tenant` is the part of the subject after `get_decision.`; it binds the query to that tenant.
    """
    headers = with_lower_names(headers)
    problems, warnings = Problems(), Problems()
    doc = read_object(data, MAX_QUERY_BYTES, warnings, parse_request)
    if isinstance(doc, Rejected):
        return doc
    get = doc.get
    tenant = agreed_tenant(get("tenant_id"), headers, subject_tenant, problems)
    id_text = get("decision_id")
    decision_id = from_text(id_text) if isinstance(id_text, str) else None
    if id_text is not None and decision_id is None:
        message = "is not a UUID" if isinstance(id_text, str) else f"is {named(id_text)}"
        problems.add("decision_id", message=message, hint="send the UUID exactly as this router returned it")
    query = DecisionQuery(
        tenant_id=tenant,
        decision_id=decision_id,
        idempotency_key=text(problems, "idempotency_key", get("idempotency_key")),
        request_id=text(problems, "request_id", get("request_id")),
        message_id=text(problems, "message_id", get("message_id")),
        trace_id=text(problems, "trace_id", get("trace_id")),
        warnings=warnings.warnings,
    )
    if warnings.warnings:
        check_whole_ids(query.request_id, query.message_id, query.idempotency_key, problems)
    # Invalid ids count as sent: their own problems are reported.
    ids_sent = [f for f in ("decision_id", "idempotency_key", "request_id", "message_id") if get(f) is not None]
    if not ids_sent:
        problems.add(
            "request_id", message="is missing", hint="send request_id, idempotency_key, decision_id or message_id"
        )
    elif ids_sent != ["message_id"] and get("tenant_id") is None and not (headers.get("tenant_id") or subject_tenant):
        problems.add(
            "tenant_id", message="is missing", hint="send tenant_id in the body, in the header or in the subject"
        )
    return problems.rejected(request_id=query.request_id, trace_id=query.trace_id) if problems else query
