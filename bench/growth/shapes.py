"""The shapes of a workload whose costs are compared: the base of `bench.workload`, changed in one thing each."""

import itertools
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from redis import Redis

from bench.workload import NEVER, SESSIONS, USERS, policy
from router.domain.json import JsonObject
from router.store.keys import Keys

_SEED = 20_26
_ID_HOLE = "0" * 16
_TEMPLATES = 8192
_AUDIT_SCRIPT = "for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'r', ARGV[2]) end"
_AUDIT_BYTES = 200
"""About what an entry of the workload has."""
_AUDIT_CHUNK = 10_000


class Shape(Struct, frozen=True, kw_only=True):
    """One workload. `grows`: what must hold of its cost, for the reader.

    - `tenants` with `policies` each; requests go to a tenant and one of its policies, uniformly or by Zipf's law.
    - `limits` of the tenant, the last of them each user's if `user_limit`; `candidates`; sessions pinned if `pins`.
    - `push`: every request is dispatched. `audit`: entries in the tenants' logs before the measurement, in all.
    - `pods` share the load. `primaries`: of a Redis Cluster; 0: one Redis without Cluster.
    """

    group: str
    name: str
    grows: str = ""
    tenants: int = 100
    policies: int = 1
    zipf: bool = False
    limits: int = 3
    user_limit: bool = False
    candidates: int = 4
    pins: bool = True
    push: bool = False
    audit: int = 0
    pods: int = 1
    primaries: int = 0

    @property
    def counted(self) -> bool:
        """Whether the script does other work for a row than in the base, so that its instructions are counted."""
        base = (3, False, 4, True, 0)
        return (self.limits, self.user_limit, self.candidates, self.pins, self.audit) != base

    def fill_audit(self, redis: Redis, most: int = NEVER) -> None:
        """Write the tenants' audit logs inside Redis, at most `most` entries each."""
        fill, record = redis.register_script(_AUDIT_SCRIPT), b"\1" * _AUDIT_BYTES
        left = min(self.audit // self.tenants, most)
        for number in range(self.tenants):
            for at in range(0, left, _AUDIT_CHUNK):
                fill(keys=[audit_key(number)], args=[min(left - at, _AUDIT_CHUNK), record])

    def document(self) -> JsonObject:
        """The policy that every tenant has."""
        found: JsonObject = dict(policy())
        if self.candidates != 4:
            names = [f"provider-{n:02d}" for n in range(self.candidates)]
            found["providers"] = [{"name": name, "weight": 1, "expected_latency_ms": 400} for name in names]
            found["fallbacks"] = [{"when": {"status": ["timeout", "5xx"]}, "retry": 1, "to": names[0]}]
        found["limits"] = list(self._limits())
        found["sticky"] = {"enabled": self.pins, "session_key": "session_id", "ttl": "10m"}
        return found

    def _limits(self) -> Iterator[JsonObject]:
        windows = ("60s", "60s", "1h", "2m", "5m", "10m", "15m", "20m", "30m", "2h")
        for n, window in enumerate(windows[: self.limits]):
            resource = "tokens" if n == 1 else "requests"
            scope = "user" if self.user_limit and n == self.limits - 1 else "tenant"
            yield {"id": f"limit-{n}", "scope": scope, "resource": resource, "limit": NEVER, "window": window}

    def write_policies(self, folder: Path) -> None:
        """The policy folder that pods seed an empty store from."""
        text = json.dumps(self.document())
        for number in range(self.tenants):
            of_tenant = folder / _tenant(number)
            of_tenant.mkdir(parents=True)
            for name in range(self.policies):
                (of_tenant / f"{_policy(name)}.json").write_text(text)

    def write_templates(self, path: Path) -> None:
        """The template file of loadgen.c; every tenant that is asked uniformly has at least one."""
        with path.open("wb") as out:
            for payload in self.requests(max(_TEMPLATES, self.tenants), itertools.repeat(_ID_HOLE)):
                at = payload.index(b'"request_id":"' + _ID_HOLE.encode()) + len(b'"request_id":"')
                out.write(struct.pack("<II", len(payload), at) + payload)

    def requests(self, count: int, ids: Iterator[str]) -> Iterator[bytes]:
        """`count` requests, the same ones at every call but for their ids."""
        rng = random.Random(_SEED)  # noqa: S311 (a fixed workload, not a secret)
        weights = [1 / (rank + 1) for rank in range(self.tenants)] if self.zipf else None
        tenants = rng.choices(range(self.tenants), weights, k=count) if self.zipf else self._uniform(rng, count)
        for of, request_id in zip(tenants, ids, strict=False):
            document: JsonObject = {
                "version": "1",
                "tenant_id": _tenant(of),
                "request_id": request_id,
                "trace_id": f"{rng.getrandbits(128):032x}",
                "policy_id": _policy(rng.randrange(self.policies)),
                "task": {"type": "chat", "payload": {"text": "Say why the sky is blue, in one sentence."}},
                "context": {
                    "session_id": f"s-{rng.randrange(SESSIONS):04d}",
                    "user_id": f"u-{rng.randrange(USERS):03d}",
                },
                "options": {"estimate": {"tokens": rng.randrange(100, 2000)}},
            }
            if self.push:
                document["push_assignment"] = True
            yield json.dumps(document, separators=(",", ":")).encode()

    def _uniform(self, rng: random.Random, count: int) -> list[int]:
        found = [n % self.tenants for n in range(count)]
        rng.shuffle(found)
        return found


def audit_key(tenant: int) -> bytes:
    """The audit log of a tenant, where a decision writes its entry."""
    return Keys().tenant(_tenant(tenant)).audit


def _tenant(number: int) -> str:
    return f"tenant-{number:05d}"


def _policy(number: int) -> str:
    return "default" if number == 0 else f"policy-{number:03d}"


BASE = Shape(group="base", name="100 tenants, 3 limits, 4 candidates, pins")
_FLAT, _LINEAR = "must not grow", "at most linear"
SHAPES = (
    Shape(group="tenants", name="1", tenants=1, grows="the same rows share one state"),
    Shape(
        group="tenants", name="10,000, Zipf", tenants=10_000, zipf=True, grows="one state to read a tenant in a call"
    ),
    Shape(group="tenants", name="10,000, uniform", tenants=10_000, grows="one state to read a row"),
    Shape(group="limits", name="0", limits=0, grows=_LINEAR),
    Shape(group="limits", name="10", limits=10, grows=_LINEAR),
    Shape(group="candidates", name="2", candidates=2, grows=_LINEAR),
    Shape(group="candidates", name="8", candidates=8, grows=_LINEAR),
    Shape(group="candidates", name="64", candidates=64, grows=_LINEAR),
    Shape(group="users", name="a limit of each user", user_limit=True, grows="one more state to read and write a row"),
    Shape(
        group="pins",
        name="off",
        pins=False,
        grows="no pin to read; a new order for each request until its slot is known",
    ),
    Shape(group="push", name="every request", push=True, grows="a task's record, a due entry and two publishes a row"),
    Shape(group="audit", name="1,000,000 entries", audit=1_000_000, grows=_FLAT),
    Shape(group="policies", name="10", tenants=10, grows=_FLAT),
    Shape(group="policies", name="10,000", policies=100, grows=_FLAT),
    Shape(group="pods", name="2", pods=2, grows="fewer rows a call at an equal load"),
    Shape(group="pods", name="4", pods=4, grows="fewer rows a call at an equal load"),
    Shape(group="Cluster", name="1 primary", primaries=1, grows="a lane for each node"),
    Shape(group="Cluster", name="2 primaries", primaries=2, grows="in all nodes together: fewer rows a call"),
    Shape(group="Cluster", name="3 primaries", primaries=3, grows="in all nodes together: fewer rows a call"),
)


def counted() -> dict[str, Shape]:
    """The shapes whose instructions are counted, by label: the base, and those that change a row."""
    return {label(shape): shape for shape in (BASE, *SHAPES) if shape is BASE or shape.counted}


def label(shape: Shape) -> str:
    """The name of a shape's count."""
    return f"{shape.group} {shape.name}"
