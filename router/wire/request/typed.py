"""The usual decide request, read in one typed pass: shape task, JSON, and no header that says anything about it.

`read_typed` accepts a part of what `wire.request.decide` accepts, and reads it into the same request. Whatever it does
not accept is read by that module, which alone names problems and repairs defects. So a rule here may be stricter than
there, never looser. Unknown fields are not accepted, because the decoder would skip their values without a check.

The target `request_typed` of tests/fuzz holds both readers against each other.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from router.domain.decide.request import (
    DEFAULT_OPTIONS,
    NO_CONSTRAINTS,
    NO_CORRELATION,
    NO_STEP,
    Correlation,
    DecideRequest,
    Options,
)
from router.domain.json import JsonObject
from router.domain.policy.model import DEFAULT_POLICY_ID
from router.wire.fields import MAX_ID_CHARS, MAX_TOKENS, MAX_TRACE_ID_CHARS, is_identifier
from router.wire.request.fingerprint import RETRY_FIELDS
from router.wire.request.identity import fits_subject
from router.wire.request.options import is_plain_context

_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
_TraceId = Annotated[str, Meta(min_length=1, max_length=MAX_TRACE_ID_CHARS)]


class _Task(Struct, gc=False, forbid_unknown_fields=True):
    type: _Id
    payload: Any = None
    payload_ref: None = None


class _Estimate(Struct, gc=False, forbid_unknown_fields=True):
    tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    cost: None = None


class _Options(Struct, gc=False, forbid_unknown_fields=True):
    estimate: _Estimate | None = None
    deadline_ms: Annotated[int, Meta(ge=1)] | None = None
    explain: bool | None = None
    meter: bool | None = None
    retry: None = None
    priority: None = None
    result_subject: None = None


class _Body(Struct, gc=False, forbid_unknown_fields=True):
    version: Literal["1"]
    tenant_id: str
    request_id: _Id
    task: _Task
    policy_id: str | None = None
    trace_id: _TraceId | None = None
    run_id: _Id | None = None
    flow_id: _Id | None = None
    step_id: _Id | None = None
    idempotency_key: _Id | None = None
    message_id: _Id | None = None
    context: dict[str, Any] | None = None
    options: _Options | None = None
    push_assignment: bool | None = None
    constraints: None = None
    metadata: None = None
    assignment_subject: None = None
    message: None = None


# What orjson, which reads in full, reads as a whole number; it reads others as floats.
_WHOLE = range(-(2**63), 2**64)
_decode = msgspec.json.Decoder(_Body).decode


def read_typed(data: bytes, subject_tenant: str | None, max_deadline_ms: int) -> DecideRequest | None:
    """Read a usual request, still without its fingerprint; None: read it in full."""
    try:
        body = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # not UTF-8, or a number of thousands of digits
        return None
    tenant_id, request_id, policy_id, task = body.tenant_id, body.request_id, body.policy_id, body.task
    trace_id, key, message_id, context = body.trace_id, body.idempotency_key, body.message_id, body.context
    if not (
        request_id.isprintable()
        and task.type.isprintable()
        and is_identifier(tenant_id)
        and (subject_tenant is None or (subject_tenant == tenant_id and fits_subject(tenant_id)))
        and (policy_id is None or is_identifier(policy_id))
        and (trace_id is None or trace_id.isprintable())
        and (key is None or key.isprintable())
        and (message_id is None or message_id.isprintable())
        and (not context or (is_plain_context(context) and _has_plain_numbers(context)))
    ):
        return None
    correlation = NO_CORRELATION
    run_id, flow_id, step_id = body.run_id, body.flow_id, body.step_id
    if run_id is not None or flow_id is not None or step_id is not None:
        if not f"{run_id}{flow_id}{step_id}".isprintable():
            return None
        correlation = Correlation(trace_id, run_id, flow_id, step_id)
    elif trace_id is not None:
        correlation = Correlation(trace_id)
    options, wanted = DEFAULT_OPTIONS, body.options
    if wanted is not None:
        tokens = None if wanted.estimate is None else wanted.estimate.tokens
        deadline_ms = wanted.deadline_ms
        if deadline_ms is not None and deadline_ms > max_deadline_ms:
            return None
        options = Options(
            tokens, None, deadline_ms, None, None, None, None, wanted.explain or False, wanted.meter or False
        )
    payload = task.payload
    return DecideRequest(
        tenant_id,
        request_id,
        policy_id or DEFAULT_POLICY_ID,
        task.type,
        b"",
        {} if payload is None else payload,
        None,
        context or {},
        {},
        key,
        message_id,
        context.get("user_id") if context else None,
        None,
        NO_STEP,
        NO_CONSTRAINTS,
        options,
        correlation,
        body.push_assignment or False,
    )


def _has_plain_numbers(context: JsonObject) -> bool:
    """Whether no field has a whole number beyond 64 bits, which the full reader makes a float.

    Looks only at what has no part in the fingerprint: anywhere else such a number fails there.
    """
    for field in RETRY_FIELDS.intersection(context):
        value = context[field]
        if type(value) is not str and not (type(value) is int and value in _WHOLE):
            return False
    return True
