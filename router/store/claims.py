"""`ports.decisions.Claims` on Redis: decisions that still need their last step.

A claim keeps two pods from running the extensions of one request at the same time. It is a key of its own with a short
life, so the claim of a crashed pod expires. The decide row stores the decision as unfinished; `complete` finishes it.
`abandon` forgets an unfinished decision, unless another pod holds a claim on its request by then.
"""

from msgspec import msgpack

from router.domain.ids import RANDOM_BYTES, name_in
from router.domain.json import JsonObject
from router.store.keys import Keys
from router.store.scripts.load import load
from router.store.servers.nodes import Nodes
from router.store.servers.replicas import Replicas

_pack = msgpack.Encoder().encode


class RedisClaims:
    """Finishes or abandons claimed decisions; the port has the promises."""

    def __init__(self, keys: Keys, nodes: Nodes, replicas: Replicas | None = None) -> None:
        self._keys = keys
        self._nodes = nodes
        self._replicas = replicas or Replicas(nodes)
        key_kinds = ("idem", "claim")
        self._complete = load(
            "complete", keys=key_kinds, argv=("random", "claim_id", "metadata"), returns={0: "done", 1: "gone"}
        )
        self._abandon = load("abandon", keys=key_kinds, argv=("random", "claim_id"), returns={0: "let_go", 1: "busy"})

    async def take(self, tenant_id: str, name: bytes, *, claim: bytes, claim_ms: int) -> bool:
        """See `ports.decisions.Claims.take`."""
        key = self._keys.tenant(tenant_id).claim(name)
        return await self._nodes.call("SET", key, claim, "PX", claim_ms, "NX") is not None

    async def complete(self, tenant_id: str, decision_id: bytes, *, claim: bytes, metadata: JsonObject) -> bool:
        """See `ports.decisions.Claims.complete`."""
        args = [decision_id[-RANDOM_BYTES:], claim, _pack(metadata) if metadata else b""]
        reply = await self._replicas.run(self._complete, self._key_names(tenant_id, name_in(decision_id)), args)
        return int(reply[0]) == 0

    async def abandon(self, tenant_id: str, decision_id: bytes, *, claim: bytes) -> bool:
        """See `ports.decisions.Claims.abandon`."""
        args = [decision_id[-RANDOM_BYTES:], claim]
        reply = await self._nodes.run(self._abandon, self._key_names(tenant_id, name_in(decision_id)), args)
        return int(reply[0]) == 0

    async def release(self, tenant_id: str, name: bytes, *, claim: bytes) -> None:
        """See `ports.decisions.Claims.release`."""
        await self._nodes.run(self._abandon, self._key_names(tenant_id, name), [b"", claim])

    def _key_names(self, tenant_id: str, name: bytes) -> list[bytes]:
        tenant = self._keys.tenant(tenant_id)
        return [tenant.idem(name), tenant.claim(name)]
