"""Checks of the pods, as a caller, on a tenant that exists only during the checks.

Its only policy has one limit of `LIMIT` requests. Whatever the number of pods, exactly that many are admitted: they
share one counter. A repeated request gets the same decision from another pod.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson
from msgspec import Struct

from router.bus.announce import announce
from router.bus.client.connection import Bus
from router.domain.ids import from_text, name_in
from router.errors import BusError
from router.selftest.check import NotChecked, NotSeen
from router.store.keys import Keys
from router.store.policies import RedisPolicies
from router.store.servers.nodes import Nodes
from router.usecases.policies.publish import PolicyPublisher
from router.wire.subjects import DECIDE

_SWEEPS, _SWEEP_S = 5, 0.2


LIMIT = 40
ASKED = 64
TOGETHER = 16
REPEATS = 100
ANSWER_S = 5.0
SCAN_STEP, SCAN_MAX = 1000, 100_000

POLICY = {
    "version": "1.0",
    "providers": [{"name": "selftest", "weight": 100}],
    "limits": [{"id": "selftest", "scope": "tenant", "resource": "requests", "limit": LIMIT, "window": "5m"}],
}


class Reply(Struct, frozen=True):
    """A reply and the pod that gave it."""

    body: dict[str, Any]
    pod: str

    @property
    def ok(self) -> bool:
        """Whether it is a decision."""
        return self.body.get("ok") is True


class FleetChecks:
    """Call `begin`, then the checks, then always `clean_up`.

    :raises NotSeen: the fleet does not behave.
    :raises BusError: no pod answers.
    """

    def __init__(self, bus: Bus, nodes: Nodes, keys: Keys, *, tenant: str, pods: int) -> None:
        self._bus, self._nodes, self._keys = bus, nodes, keys
        self._tenant, self._pods = tenant, pods
        self._publisher = PolicyPublisher(RedisPolicies(nodes, keys), self)
        self._admitted: list[Reply] = []
        self._seen: set[str] = set()
        self._ours = False

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """See `ports.policies.Announcer`: a pod that misses it notices with its next decision."""
        announce(self._bus, tenant_id, revision)

    async def begin(self) -> str:
        """Create the tenant, and have its first request answered."""
        if await self._traces():
            raise NotSeen(f"the tenant {self._tenant} has keys in Redis: name an unused one")
        self._ours = True
        await self._publisher.apply(self._tenant, policy_id="default", document=orjson.dumps(POLICY), expect_revision=0)
        await self._bus.flush()
        first = await self._ask("0")
        if not first.ok:
            raise _refused(first)
        self._admitted.append(first)
        return f"answered by {first.pod}"

    async def one_counter(self) -> str:
        """The limit is admitted once, whatever the number of pods."""
        if not self._admitted:
            raise NotChecked("the first request was not admitted")
        refused: list[Reply] = []
        for start in range(1, ASKED, TOGETHER):
            numbers = range(start, min(start + TOGETHER, ASKED))
            for reply in await asyncio.gather(*(self._ask(str(n)) for n in numbers)):
                (self._admitted if reply.ok else refused).append(reply)
        codes = {str(r.body.get("error", {}).get("code")) for r in refused}
        if codes - {"rate_limit_exceeded"}:
            raise NotSeen(f"refused with {', '.join(sorted(codes))}")
        if len(self._admitted) != LIMIT:
            raise NotSeen(f"{len(self._admitted)} of {ASKED} requests were admitted, the limit is {LIMIT}")
        return f"{LIMIT} of {ASKED} requests admitted, as the limit says, by {_names(self._seen)}"

    async def several_pods(self) -> str:
        """At least two pods answer, and one of them knows a decision of another."""
        if self._pods < 2:
            raise NotChecked("one replica: nothing to share a counter with")
        if not self._admitted:
            raise NotChecked("the first request was not admitted")
        first = self._admitted[0]
        for _ in range(REPEATS):
            again = await self._ask("0")
            if again.body.get("decision") != first.body["decision"]:
                raise NotSeen(f"{first.pod} decided {first.body['decision']}, {again.pod} answers {again.body}")
            if len(self._seen) >= 2 and again.pod != first.pod:
                return f"{_names(self._seen)} answered; {again.pod} repeats what {first.pod} decided"
        raise NotSeen(f"only {_names(self._seen)} answered {ASKED + REPEATS} requests; {self._pods} pods are expected")

    async def clean_up(self) -> str:
        """Remove the tenant, with its stored answers."""
        if not self._ours:
            raise NotChecked("nothing was written")
        keys = self._keys.tenant(self._tenant)
        ids = (from_text(str(r.body["decision"]["decision_id"])) for r in self._admitted)
        answers = [keys.idem(name_in(decision_id)) for decision_id in ids if decision_id is not None]
        if (await self._publisher.list(self._tenant)).find("default") is not None:
            await self._publisher.delete(self._tenant, policy_id="default")
        removed = 0
        left = [*answers, *await self._traces()]
        # A row whose pod has stopped waiting may still be executed, until its own deadline.
        for _ in range(_SWEEPS):
            for key in left:
                removed += int(await self._nodes.call("UNLINK", key))
            left = await self._traces()
            if not left:
                break
            await asyncio.sleep(_SWEEP_S)
        if left:
            raise NotSeen(f"{len(left)} keys of {self._tenant} are still there: {left[0].decode(errors='replace')} …")
        return f"{removed} keys removed, none left"

    async def _traces(self) -> list[bytes]:
        """The tenant's keys in Redis."""
        prefix = self._keys.tenant(self._tenant).prefix
        escaped = b"".join(b"\\" + bytes([c]) if c in b"[]*?\\" else bytes([c]) for c in prefix)
        return await self._nodes.scan((escaped + b"*").decode(), SCAN_STEP, SCAN_MAX)

    async def _ask(self, number: str) -> Reply:
        body = {
            "version": "1",
            "tenant_id": self._tenant,
            "request_id": f"{self._tenant}-{number}",
            "task": {"type": "selftest", "payload": {}},
        }
        answer = await self._bus.request(DECIDE, orjson.dumps(body), timeout_s=ANSWER_S)
        reply = Reply(orjson.loads(answer.data), answer.headers.get("router-pod", ""))
        if not reply.pod:
            raise BusError(f"an answer without the header router-pod: does something else listen on {DECIDE}?")
        self._seen.add(reply.pod)
        return reply


def _refused(reply: Reply) -> Exception:
    error = reply.body.get("error", {})
    details = error.get("details") or {}
    if error.get("code") == "unauthorized" and "requires_cp" in details:
        return NotChecked(f"the fleet runs as CP1 baseline and serves one tenant; {details['requires_cp']} serves all")
    if error.get("code") == "unauthorized":
        return NotSeen(f"{error.get('message')}: name a tenant that the fleet serves with --tenant")
    return NotSeen(f"refused: {error}")


def _names(pods: Iterable[str]) -> str:
    return " and ".join(sorted(pods))
