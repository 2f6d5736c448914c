"""The proof's caller keeps what callers are asked to do."""

from typing import Any

from router.local.client import Reply, patiently

DECIDED: dict[str, Any] = {"ok": True, "decision": {"provider_id": "p1"}}


def put_off(code: str) -> dict[str, Any]:
    """A refusal that asks for the same request again."""
    return {"ok": False, "error": {"code": code, "details": {"retry_after_ms": 1}}}


async def asked(*bodies: dict[str, Any], within_s: float = 5.0) -> tuple[dict[str, Any], int]:
    """What it came to over these answers, and how many it took."""
    waiting = list(bodies)

    async def ask() -> Reply:
        return Reply(waiting.pop(0), "router-1", 1.0)

    reply = await patiently(ask, within_s)
    return reply.body, len(bodies) - len(waiting)


async def test_who_is_put_off_asks_again() -> None:
    """`unavailable` and `service_overloaded` are followed until there is a decision."""
    assert await asked(put_off("unavailable"), put_off("service_overloaded"), DECIDED) == (DECIDED, 3)


async def test_a_refusal_is_an_answer() -> None:
    """What will not be better in a moment is not asked again."""
    refused = put_off("rate_limit_exceeded")
    assert await asked(refused, DECIDED) == (refused, 1)


async def test_patience_ends() -> None:
    """After the time the last answer stands."""
    last = put_off("unavailable")
    assert await asked(last, DECIDED, within_s=0) == (last, 1)
