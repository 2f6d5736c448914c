"""`ports.tenants.TenantStore` on Redis: finds everything of a tenant by a walk over its partition, page by page.

Keys under the tenant's prefix are its own. Keys that a partition shares name their tenant inside: delivery records,
message indexes, and stored answers (`tenant_answers`).
"""

from collections import Counter
from secrets import token_bytes

from router.chunks import chunks
from router.ports.tenants import KindCensus, Purged, TenantContents
from router.store.key_kinds import KEYS
from router.store.keys import Keys, TenantKeys
from router.store.packing import FormatError
from router.store.scripts.load import load
from router.store.servers.nodes import Nodes
from router.store.servers.replicas import Replicas
from router.store.tasks.records import task_record
from router.store.tenants.answers import TenantAnswers

MAX_WALKED = 5_000_000
_STEP = 1_000
_ROWS = 512
_SAMPLE = 64
_OWN = "<schema>:{p}:<tenant>:"


def _kinds() -> tuple[dict[bytes, str], dict[bytes, str]]:
    """Kinds of a tenant's own keys: by the whole rest of the key, and by its beginning."""
    whole: dict[bytes, str] = {}
    begins: dict[bytes, str] = {}
    for kind, row in KEYS.items():
        if row.pattern.startswith(_OWN):
            rest, owner, _ = row.pattern[len(_OWN) :].partition("<")
            (begins if owner else whole)[rest.encode()] = kind
    return whole, begins


_WHOLE, _BEGINS = _kinds()


def kind_of(rest: bytes) -> str:
    """The kind of a tenant's own key, by the text after the tenant; `other`: a kind of a newer version."""
    whole_kind = _WHOLE.get(rest)
    return whole_kind or next((kind for begin, kind in _BEGINS.items() if rest.startswith(begin)), "other")


class RedisTenants:
    """Counts and purges; the port has the promises."""

    def __init__(self, keys: Keys, nodes: Nodes, replicas: Replicas | None = None) -> None:
        self._keys = keys
        self._nodes = nodes
        self._replicas = replicas or Replicas(nodes)
        returns = {0: "ended", 1: "unknown"}
        self._end = load("purge_tenant", keys=("head", "policies"), argv=("random", "keep_ms"), returns=returns)

    async def contents(self, tenant_id: str) -> TenantContents:
        """See `ports.tenants.TenantStore.contents`."""
        tenant = self._keys.tenant(tenant_id)
        counts: Counter[str] = Counter()
        samples: dict[str, list[bytes]] = {}
        walked = 0
        async for page in self._nodes.pages(tenant.prefix + b"*", _STEP):
            for key in page:
                kind = kind_of(key[len(tenant.prefix) :])
                counts[kind] += 1
                sample = samples.setdefault(kind, [])
                if len(sample) < _SAMPLE:
                    sample.append(key)
            walked += len(page)
            if walked >= MAX_WALKED:
                break
        sizes = {kind: await self._sizes(sample) for kind, sample in samples.items()}
        kinds = [KindCensus(kind=k, keys=n, size_bytes=round(sizes[k] * n)) for k, n in sorted(counts.items())]
        entries = int(await self._nodes.call("XLEN", tenant.audit))
        return TenantContents(kinds, entries, await self._open_tasks(tenant_id), walked < MAX_WALKED)

    async def _sizes(self, sample: list[bytes]) -> float:
        replies = await self._nodes.gather([("MEMORY", "USAGE", key, "SAMPLES", 5) for key in sample])
        sizes = [int(size) for size in replies if size is not None]
        return sum(sizes) / len(sizes) if sizes else 0.0

    async def _open_tasks(self, tenant_id: str) -> dict[str, int]:
        """Unfinished tasks by state, read from the due set."""
        tenant = self._keys.tenant(tenant_id)
        states: Counter[str] = Counter()
        ids = await self._nodes.call("ZRANGE", tenant.due, 0, 9_999)
        for chunk in chunks(ids, _ROWS):
            for raw in await self._nodes.gather([("GET", tenant.task(i)) for i in chunk]):
                if raw is not None and _task_of(raw, tenant_id):
                    states[task_record(raw).state.label] += 1
        return dict(states)

    async def end(self, tenant_id: str, *, keep_ms: int) -> int | None:
        """See `ports.tenants.TenantStore.end`."""
        tenant = self._keys.tenant(tenant_id)
        reply = await self._replicas.run(self._end, (tenant.head, tenant.policies), (token_bytes(4), keep_ms))
        return int(reply[1]) if reply[0] == 0 else None

    async def purge(self, tenant_id: str, *, dry_run: bool) -> Purged:
        """See `ports.tenants.TenantStore.purge`."""
        tenant = self._keys.tenant(tenant_id)
        counts: Counter[str] = Counter()
        answers = TenantAnswers(self._nodes, tenant, tenant_id)
        cut = await answers.cut()
        alone = await answers.alone()
        # The log first: it names answers, and the walk removes it.
        async for names in answers.names():
            marked, unmarked = await answers.of([tenant.idem(n) for n in names])
            counts["idem"] += await self._drop(unmarked if alone else marked + unmarked, dry_run=dry_run)
            counts["claim"] += await self._drop([tenant.claim(n) for n in names], dry_run=dry_run)
        unsure = False
        async for page in self._nodes.pages(self._pattern(tenant), _STEP):
            counts += await self._own(tenant, page, dry_run=dry_run)
            counts += await self._tasks(tenant, tenant_id, page, dry_run=dry_run)
            counts += await self._messages(tenant, tenant_id, page, dry_run=dry_run)
            marked, unmarked = await answers.of([k for k in page if answers.may_be(k)])
            counts["idem"] += await self._drop(marked if alone else [], dry_run=dry_run)
            unsure = unsure or bool(unmarked or (marked and not alone))
        if not dry_run:
            counts["retain"] += int(await self._nodes.call("ZREM", self._keys.retain(tenant.partition), tenant_id))
        counts["epochs"] += await self._epochs(tenant_id, dry_run=dry_run)
        if not dry_run:
            await self._replicas.confirm([tenant.head])
        return Purged({kind: n for kind, n in sorted(counts.items()) if n}, cut and unsure)

    def _pattern(self, tenant: TenantKeys) -> bytes:
        """All keys of the tenant's partition."""
        return b"%b*{%b}*" % (self._keys.schema.encode(), self._keys.tag(tenant.partition))

    async def _drop(self, keys: list[bytes], *, dry_run: bool) -> int:
        if not keys:
            return 0
        return int(await self._nodes.call("EXISTS" if dry_run else "UNLINK", *keys))

    async def _own(self, tenant: TenantKeys, page: list[bytes], *, dry_run: bool) -> Counter[str]:
        """Remove the keys under the tenant's prefix, except the head, which expires; a dry run counts it."""
        counts: Counter[str] = Counter()
        own_keys = [k for k in page if k.startswith(tenant.prefix) and (dry_run or k != tenant.head)]
        if own_keys:
            await self._drop(own_keys, dry_run=dry_run)
            counts.update(kind_of(k[len(tenant.prefix) :]) for k in own_keys)
        return counts

    async def _tasks(self, tenant: TenantKeys, tenant_id: str, page: list[bytes], *, dry_run: bool) -> Counter[str]:
        """Delivery records with work items and final results, and their due entries."""
        prefix = tenant.shared + b"task:"
        keys = [k for k in page if k.startswith(prefix)]
        raws = await self._nodes.gather([("GET", k) for k in keys])
        ids = [
            k[len(prefix) :] for k, raw in zip(keys, raws, strict=True) if raw is not None and _task_of(raw, tenant_id)
        ]
        if not ids:
            return Counter()
        if not dry_run:
            await self._nodes.call("ZREM", tenant.due, *ids)
        jobs = await self._drop([tenant.job(i) for i in ids], dry_run=dry_run)
        final_results = await self._drop([tenant.final(i) for i in ids], dry_run=dry_run)
        return Counter(
            task=await self._drop([tenant.task(i) for i in ids], dry_run=dry_run), job=jobs, final=final_results
        )

    async def _messages(self, tenant: TenantKeys, tenant_id: str, page: list[bytes], *, dry_run: bool) -> Counter[str]:
        """The tenant's fields in message indexes."""
        prefix = tenant.idem_prefix + b"m"
        keys = [k for k in page if k.startswith(prefix) and len(k) == len(prefix) + 10]
        act = "HEXISTS" if dry_run else "HDEL"
        return Counter(message=sum(await self._nodes.gather([(act, k, tenant_id) for k in keys])))

    async def _epochs(self, tenant_id: str, *, dry_run: bool) -> int:
        """Alert episodes whose scope is this tenant, or part of it."""
        key, cursor, count = self._keys.epochs, 0, 0
        while True:
            cursor, flat = await self._nodes.call("HSCAN", key, cursor, "COUNT", _STEP)
            names = list(flat) if isinstance(flat, dict) else flat[::2]
            fields = [n for n in names if n.decode().partition(":")[2].partition("/")[0] == tenant_id]
            count += len(fields)
            if fields and not dry_run:
                await self._nodes.call("HDEL", key, *fields)
            cursor = int(cursor)
            if cursor == 0:
                return count


def _task_of(raw: bytes, tenant_id: str) -> bool:
    """Whether a delivery record belongs to the tenant; an unreadable one belongs to none."""
    try:
        return task_record(raw).facts.tenant_id == tenant_id
    except FormatError:
        return False
