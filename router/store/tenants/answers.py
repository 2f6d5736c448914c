"""Which stored answers of a partition belong to a tenant.

An answer carries its tenant's mark of 3 bytes. The mark identifies the tenant only if no other tenant of the partition
has the same one. In that case, and for answers that the first version wrote without a mark, the idempotency names in
the audit log decide. (A claim has no mark; it lives for seconds.)
"""

from collections.abc import AsyncIterator, Iterable
from struct import Struct as Layout

from router.domain.ids import NAME_BYTES, name_in, owner_mark
from router.domain.tasks.task import Action, Unreadable
from router.store.keys import NO_TENANT, TenantKeys
from router.store.packing import FORMAT, OutcomeFlag
from router.store.servers.hashes import field_pairs
from router.store.servers.nodes import Nodes
from router.store.servers.reads import read_each

DAY_MS = 86_400_000
_STEP = 1_000
_ROWS = 512
# Format, fingerprint, the tenant's mark, random bytes, reason, flags.
_ANSWER = Layout(">B5s3s4sBB")
_DECIDED = Layout(">BBdd16s")
_DECISIONS = (Action.DECISION_MADE, Action.DECISION_REFUSED, Action.DECISION_CONFLICT)


class TenantAnswers:
    """Finds answers; removes nothing. Every method raises `StoreError` when Redis did not answer."""

    def __init__(self, nodes: Nodes, tenant: TenantKeys, tenant_id: str) -> None:
        self._nodes = nodes
        self._tenant = tenant
        self._tenant_id = tenant_id

    async def alone(self) -> bool:
        """Whether no other tenant of the partition has the same mark."""
        heads = self._tenant.shared.removesuffix(f"{NO_TENANT}:".encode()) + b"*:head"
        async for page in self._nodes.pages(heads, _STEP):
            for key in page:
                name = key.rpartition(b"}:")[2].partition(b":")[0].decode(errors="replace")
                if name != self._tenant_id and owner_mark(name) == self._tenant.owner:
                    return False
        return True

    def may_be(self, key: bytes) -> bool:
        """Whether the key holds a stored answer of the partition."""
        prefix = self._tenant.idem_prefix
        return key.startswith(prefix) and len(key) == len(prefix) + NAME_BYTES

    async def of(self, keys: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Of these answers, those with the tenant's mark, and those without any mark."""
        if not keys:
            return [], []
        marked: list[bytes] = []
        unmarked: list[bytes] = []
        heads = await read_each(self._nodes, [("GETRANGE", k, 0, _ANSWER.size - 1) for k in keys])
        for key, head in zip(keys, heads, strict=True):
            if isinstance(head, Unreadable) or len(head) < _ANSWER.size or head[0] != FORMAT:
                continue
            _, _, mark, _, _, flags = _ANSWER.unpack(head)
            if not flags & OutcomeFlag.OWNED:
                unmarked.append(key)
            elif mark == self._tenant.owner:
                marked.append(key)
        return marked, unmarked

    async def names(self) -> AsyncIterator[list[bytes]]:
        """The idempotency names in the log, newest first, back to the age at which answers expire."""
        since, before = await self._now_ms() - DAY_MS - 60_000, "+"
        while rows := await self._nodes.call("XREVRANGE", self._tenant.audit, before, f"{since}-0", "COUNT", _ROWS):
            yield [name_in(decision) for decision in _decisions(fields.get(b"r", b"") for _, fields in rows)]
            before = f"({rows[-1][0].decode()}"

    async def cut(self) -> bool:
        """Whether the log was cut although answers that it named may still be stored."""
        if not await self._nodes.call("EXISTS", self._tenant.audit):
            return False
        info = await self._nodes.call("XINFO", "STREAM", self._tenant.audit)
        facts = {k.decode() if isinstance(k, bytes) else k: v for k, v in field_pairs(info)}
        first = facts["first-entry"]
        cut = int(facts["entries-added"]) > int(facts["length"])
        oldest_ms = int(first[0].partition(b"-")[0]) if first else 0
        return cut and oldest_ms > await self._now_ms() - DAY_MS

    async def _now_ms(self) -> int:
        seconds, micros = (await self._nodes.each("TIME"))[0]
        return int(seconds) * 1000 + int(micros) // 1000


def _decisions(records: Iterable[bytes]) -> Iterable[bytes]:
    for raw in records:
        if len(raw) >= _DECIDED.size and raw[1] in _DECISIONS:
            yield _DECIDED.unpack_from(raw)[4]
