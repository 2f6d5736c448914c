"""The full-feature workload: what the bench asks, and under which policies.

100 tenants, each with one policy: four providers, a breaker, sticky sessions, a fallback, and three limits of the
tenant (requests a minute, tokens a minute, requests an hour) so high that they never refuse: one packed state a tenant,
as in the design's table. 50 users and 200 sessions a tenant. Beside it, where a figure says so, the hourly limit is
each user's: a second state to read and write in every row. Every request has an id of its own, so each one writes an
idempotency key, three counters and an audit record, and finds its session's pin or makes it.
"""

import json
import random
import struct
from pathlib import Path

from router.domain.json import JsonObject

TENANTS, USERS, SESSIONS = 100, 50, 200
TEMPLATES = 8192
NEVER = 1_000_000_000
ID_DIGITS = 16
_ID_HOLE = "0" * ID_DIGITS
_SEED = 20_24


def tenant(number: int) -> str:
    """The name of tenant `number`."""
    return f"tenant-{number:03d}"


def session(number: int) -> str:
    """The name of a tenant's session `number`."""
    return f"s-{number:04d}"


def policy(third: str = "tenant") -> JsonObject:
    """The policy document that every tenant has; `third`: whose the third limit is."""
    weights = {"openai-gpt": 40, "anthropic-claude": 30, "mistral-large": 20, "local-llama": 10}
    return {
        "version": "1.0",
        "providers": [
            {"name": name, "weight": weight, "expected_latency_ms": 400 + weight, "expected_cost": 0.002}
            for name, weight in weights.items()
        ],
        "sticky": {"enabled": True, "session_key": "session_id", "ttl": "10m"},
        "fallbacks": [{"when": {"status": ["timeout", "5xx"]}, "retry": 1, "to": "local-llama"}],
        "circuit_breaker": {"enabled": True, "failure_threshold": 5, "timeout_ms": 30_000},
        "limits": [
            {"id": "requests", "scope": "tenant", "resource": "requests", "limit": NEVER, "window": "60s"},
            {"id": "tokens", "scope": "tenant", "resource": "tokens", "limit": NEVER, "window": "60s"},
            {"id": "hourly", "scope": third, "resource": "requests", "limit": NEVER, "window": "1h"},
        ],
    }


def write_policies(folder: Path) -> None:
    """The policy folder that a pod seeds an empty store from."""
    text = json.dumps(policy(), indent=1)
    for number in range(TENANTS):
        of_tenant = folder / tenant(number)
        of_tenant.mkdir(parents=True)
        (of_tenant / "default.json").write_text(text)


def request(rng: random.Random, request_id: str) -> bytes:
    """One decide request in the task shape, about 420 bytes."""
    of = rng.randrange(TENANTS)
    document = {
        "version": "1",
        "tenant_id": tenant(of),
        "request_id": request_id,
        "trace_id": f"{rng.getrandbits(128):032x}",
        "policy_id": "default",
        "task": {
            "type": "chat",
            "payload": {"messages": [{"role": "user", "content": "Say why the sky is blue, in one sentence."}]},
        },
        "context": {"session_id": session(rng.randrange(SESSIONS)), "user_id": f"u-{rng.randrange(USERS):03d}"},
        "options": {"estimate": {"tokens": rng.randrange(100, 2000)}},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def requests(count: int, first_id: int) -> list[bytes]:
    """`count` different requests, the same ones at every call but for their ids: `first_id`, `first_id` + 1, …"""
    rng = random.Random(_SEED)  # noqa: S311 (a fixed workload, not a secret)
    return [request(rng, f"{first_id + i:0{ID_DIGITS}x}") for i in range(count)]


def write_templates(path: Path) -> None:
    """The template file of loadgen.c: length, offset of the id, payload."""
    rng = random.Random(_SEED)  # noqa: S311 (a fixed workload, not a secret)
    with path.open("wb") as out:
        for _ in range(TEMPLATES):
            payload = request(rng, _ID_HOLE)
            at = payload.index(b'"request_id":"' + _ID_HOLE.encode()) + len(b'"request_id":"')
            out.write(struct.pack("<II", len(payload), at) + payload)
