"""`ports.tenants.StoreSample` on Redis: one page of keys at a time, in hash-table order, which is close to random."""

from collections import Counter
from collections.abc import AsyncIterator

from router.errors import StoreError
from router.ports.tenants import SamplePage
from router.store.key_kinds import KEYS
from router.store.keys import Keys
from router.store.servers.nodes import Nodes
from router.store.servers.reads import sizes
from router.store.tenants.walk import kind_of

OTHER = "other"
_STEP = 500
_MEASURED = 16
_FLEET = "<schema>:"
_SHARED = "<schema>:{p}:~:"
_NAME = 10


def _rests(prefix: str) -> dict[bytes, str]:
    """Kinds of keys with this prefix, by the constant text after it."""
    rows = ((kind, row.pattern) for kind, row in KEYS.items() if row.pattern.startswith(prefix))
    return {p[len(prefix) :].partition("<")[0].encode(): k for k, p in rows if not p[len(prefix) :].startswith("{")}


_OF_FLEET, _OF_PARTITION = _rests(_FLEET), _rests(_SHARED)


def kind_of_key(schema: bytes, key: bytes) -> str:
    """The kind of a key, one of `store.key_kinds.KEYS`; `other`: the key matches none of them."""
    if not key.startswith(schema):
        return OTHER
    rest = key[len(schema) :]
    if rest.startswith(b"{"):
        name = rest.partition(b"}")[2]
        if len(name) == _NAME:
            return "idem"
        if len(name) == _NAME + 1 and name.startswith(b"m"):
            return "message"
        return "claim" if name.endswith(b":claim") and len(name) == _NAME + 6 else OTHER
    if not rest.startswith(b":"):
        return OTHER
    if not rest.startswith(b":{"):
        return _OF_FLEET.get(rest[1:], OTHER)
    owner, _, rest = rest.partition(b"}:")[2].partition(b":")
    if owner != b"~":
        return kind_of(rest)
    return next((kind for begin, kind in _OF_PARTITION.items() if rest.startswith(begin)), OTHER)


class RedisSample:
    """Samples the store; the port has the promises. `pod` names this pod in the lease."""

    def __init__(self, keys: Keys, nodes: Nodes, pod: str) -> None:
        self._schema = keys.schema.encode()
        self._key = keys.census
        self._nodes = nodes
        self._pod = pod
        self._pages: AsyncIterator[list[bytes]] | None = None

    async def lead(self, lease_ms: int) -> bool:
        """See `ports.tenants.StoreSample.lead`."""
        if await self._nodes.call("SET", self._key, self._pod, "NX", "PX", lease_ms):
            return True
        if await self._nodes.call("GET", self._key) != self._pod.encode():
            return False
        # Two pods that both believe they hold the lease do no harm: each reports its own sample.
        await self._nodes.call("SET", self._key, self._pod, "PX", lease_ms)
        return True

    async def page(self) -> SamplePage:
        """See `ports.tenants.StoreSample.page`."""
        keys = await self._next()
        counts: Counter[str] = Counter()
        measured: list[tuple[str, bytes]] = []
        for key in keys:
            kind = kind_of_key(self._schema, key)
            counts[kind] += 1
            if counts[kind] <= _MEASURED:
                measured.append((kind, key))
        by_kind: dict[str, list[int]] = {}
        for (kind, _), size in zip(measured, await sizes(self._nodes, [key for _, key in measured]), strict=True):
            if size is not None:
                by_kind.setdefault(kind, []).append(int(size))
        return SamplePage(sum(map(int, await self._nodes.each("DBSIZE"))), dict(counts), by_kind)

    async def _next(self) -> list[bytes]:
        """The next page of the current walk, or the first page of a new walk; empty when the store is empty."""
        for _ in range(2):
            if self._pages is None:
                self._pages = self._nodes.pages(b"*", _STEP)
            try:
                return await anext(self._pages)
            except StopAsyncIteration:
                self._pages = None
            except StoreError:
                self._pages = None
                raise
        return []
