"""POST /v1/decide and POST /v1/decide/batch: decide requests, with the bodies and replies of NATS."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from router.domain.api_key import Asker
from router.domain.decide.decision import Code, Refused
from router.edge.api.messages import Reply, invalid, refused, reply_of, request_headers
from router.wire.problems import Problems
from router.wire.reply import encode
from router.wire.request.peek import peek_tenant
from router.wire.request.protobuf import is_protobuf

MAX_BATCH = 256

Answer = Callable[[bytes, Mapping[str, str] | None], None]
Handle = Callable[[bytes, Mapping[str, str] | None, str | None, Answer | None], None]
"""`handle(data, headers, bound tenant, answer)`: calls `answer` exactly once."""


class _Batch(Struct, forbid_unknown_fields=True):
    requests: list[msgspec.Raw]


_decode_batch = msgspec.json.Decoder(_Batch).decode
_MAY_NOT_ASK = Refused(Code.UNAUTHORIZED, "this key may not ask for decisions: use one of role caller or admin")


class DecideRoutes:
    """Answers decide requests. `handle` is that of the use case."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def decide(self, asker: Asker, headers: Mapping[str, str], data: bytes) -> Reply:
        """Answer one request."""
        if not asker.role.may_ask:
            return refused(_MAY_NOT_ASK, 403)
        body, reply_headers = await self._answer(asker, request_headers(headers), data)
        return reply_of(body, reply_headers)

    async def batch(self, asker: Asker, headers: Mapping[str, str], data: bytes) -> Reply:
        """Answer 1 to 256 requests, each with its own reply, in their order."""
        if not asker.role.may_ask:
            return refused(_MAY_NOT_ASK, 403)
        try:
            requests = _decode_batch(data).requests
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
            return invalid("", f"is not a batch: {fault}", 'send {"requests": [request, …]}')
        if not 1 <= len(requests) <= MAX_BATCH:
            return invalid("requests", f"has {len(requests):,} entries", f"send 1 to {MAX_BATCH}")
        shared = request_headers(headers)
        if shared is not None and "idempotency-key" in shared:
            return invalid("header idempotency-key", "stands for one request", "put idempotency_key into each request")
        answers = await asyncio.gather(*(self._answer(asker, shared, bytes(request)) for request in requests))
        return Reply(200, b'{"replies":[' + b",".join(body for body, _ in answers) + b"]}")

    async def _answer(
        self, asker: Asker, headers: Mapping[str, str] | None, data: bytes
    ) -> tuple[bytes, Mapping[str, str] | None]:
        bound = bound_tenant(asker, data, headers)
        if isinstance(bound, Refused):
            return encode(bound, request_id=None, trace_id=None), None
        answered: asyncio.Future[tuple[bytes, Mapping[str, str] | None]] = asyncio.get_running_loop().create_future()

        def answer(body: bytes, reply_headers: Mapping[str, str] | None) -> None:
            if not answered.done():  # the client may have gone
                answered.set_result((body, reply_headers))

        self._handle(data, headers, bound, answer)
        return await answered


def bound_tenant(asker: Asker, data: bytes, headers: Mapping[str, str] | None) -> str | Refused | None:
    """Return the tenant that the request must be of; None: any.

    The request is read in full later, and refused if it names another tenant than the one that was found here.
    """
    tenants = asker.tenants
    if tenants is None:
        return None
    protobuf = headers is not None and is_protobuf(headers.get("content-type"))
    found = peek_tenant(data, headers, None, protobuf=protobuf)
    if found in tenants:
        return found
    if found is not None:
        return Refused(Code.UNAUTHORIZED, "this key is not for that tenant", {"tenant_id": found[:255]})
    if len(tenants) == 1:
        return next(iter(tenants))
    problems = Problems()
    problems.add("tenant_id", message="is missing or unreadable", hint="name a tenant: this key has several")
    return problems.rejected().refused
