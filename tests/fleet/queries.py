"""What tests ask a fleet as an operator and as a caller."""

from typing import Any

import orjson

from tests.fleet.foreign import (
    GET_DECISION,
    Body,
    Foreign,
)

ADMIN = "beamline.router.v1.admin."


async def act(caller: Foreign, name: str, body: Body, headers: dict[str, str] | None = None) -> Body:
    """The reply of one act."""
    reply = await caller.client.request(ADMIN + name, orjson.dumps(body), timeout=5, headers=headers)
    found: dict[str, Any] = orjson.loads(reply.data)
    return found


async def state_of(caller: Foreign, tenant: str, request_id: str) -> Body:
    """The assignment as `get_decision` tells it."""
    reply = await caller.ask({"tenant_id": tenant, "request_id": request_id}, subject=GET_DECISION)
    assert reply.ok, reply.body
    return dict(reply.body["assignment"])
