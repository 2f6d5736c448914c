"""POST /v1/results: a result of a task, for callers that run it themselves and for workers without NATS.

It goes the way of every result: into the stream RESULT, under the subject of its tenant. The answer is 202 once the
stream holds it; what it settles is decided later, as for a result over NATS.
"""

import asyncio
from collections.abc import Callable, Mapping
from hashlib import blake2b

from router.domain.api_key import Asker
from router.domain.decide.decision import Code, Refused
from router.edge.api.messages import Reply, refused
from router.ports.bus import Publication, Published, Publisher
from router.wire.problems import Problems, Rejected
from router.wire.request.identity import fits_subject
from router.wire.request.protobuf import is_protobuf
from router.wire.subjects import RESULT, of_tenant
from router.wire.worker.results import decode_result

WITHIN_S = 5.0
_MAY_NOT_REPORT = Refused(Code.UNAUTHORIZED, "this key may not report results: use one of role caller or admin")
_FOREIGN = Refused(Code.UNAUTHORIZED, "this key is not for the tenant of the result")
_STORED = Reply(202, b'{"ok":true}')


class ResultRoutes:
    """Publishes results. `stores`: whether the stream of results stores a subject."""

    def __init__(self, publisher: Publisher, stores: Callable[[str], bool]) -> None:
        self._publisher = publisher
        self._stores = stores

    async def report(self, asker: Asker, headers: Mapping[str, str], data: bytes) -> Reply:
        """Publish one result; sent twice within the stream's dedup window, it is stored once."""
        if not asker.role.may_ask:
            return refused(_MAY_NOT_REPORT, 403)
        kind = headers.get("content-type", "")
        passed_on = {"Content-Type": kind} if is_protobuf(kind) else {}
        tenants = asker.tenants
        only = next(iter(tenants)) if tenants is not None and len(tenants) == 1 else None
        found = decode_result(data, passed_on, only)
        if isinstance(found, Rejected):
            return refused(found.refused)
        tenant = _tenant(asker, found.tenant_id or only)
        if isinstance(tenant, Refused):
            return refused(tenant)
        subject = of_tenant(RESULT, tenant_id=tenant)
        if not self._stores(subject):
            hint = f"add the subject with `nats stream edit RESULT`, or report it over NATS on {RESULT}"
            return refused(Refused(Code.UNAVAILABLE, f"the stream of results does not store {subject}: {hint}"))
        return await self._publish(subject, data, passed_on, headers.get("idempotency-key", ""))

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str], key: str) -> Reply:
        stored: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        why: list[str] = []

        def done(outcome: Published) -> None:
            if not stored.done():  # the client may have gone
                stored.set_result(outcome)

        name = blake2b(b"%b\0%b\0%b" % (subject.encode(), key.encode("utf-8", "replace"), data), digest_size=16)
        publication = Publication(
            subject, data, f"api:{name.hexdigest()}", headers, within_s=WITHIN_S, failed=why.append
        )
        self._publisher.publish(publication, done)
        if await stored:
            return _STORED
        message = "the stream of results has not stored it: report it again"
        return refused(Refused(Code.UNAVAILABLE, f"{message} ({why[0]})" if why else message, {"retry_after_ms": 1000}))


def _tenant(asker: Asker, named: str | None) -> str | Refused:
    tenants = asker.tenants
    if named is None or not fits_subject(named):
        problems = Problems()
        hint = "name the tenant of the result, without empty parts between its dots"
        problems.add("tenant_id", message="is missing, or cannot be part of a subject", hint=hint)
        return problems.rejected().refused
    return _FOREIGN if tenants is not None and named not in tenants else named
