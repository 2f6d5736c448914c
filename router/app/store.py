"""The store of a pod: the lanes carry decide calls, one client carries everything else."""

import os
from collections.abc import Callable
from typing import NamedTuple

from router.app.adapter_settings import (
    audit_ms,
    lane_settings,
    policy_bounds,
    retention_bounds,
)
from router.app.redis_nodes import redis_access, redis_nodes, redis_replica, redis_sentinel, redis_server
from router.domain.degraded import Degradable
from router.domain.tasks.task import BreakerTurn, Move
from router.errors import StoreError, StoreForbidden
from router.settings import Settings
from router.store.audit.log import RedisAudit
from router.store.audit.retention import RedisRetention
from router.store.audit.unknown_tenants import RedisUnknownTenants
from router.store.claims import RedisClaims
from router.store.decide.availability import LaneHooks
from router.store.decide.lanes import Lanes
from router.store.decide.rows import RowPacker
from router.store.decisions import RedisDecisions, decide_script
from router.store.extensions import RedisExtensions
from router.store.figures import RedisFigures
from router.store.keys import Keys
from router.store.levers import RedisLevers, lever_scripts
from router.store.policies import RedisPolicies
from router.store.servers.facts import RedisServers
from router.store.servers.meta import RedisEpochs, RedisMeta
from router.store.servers.nodes import Nodes
from router.store.servers.replicas import Replicas
from router.store.servers.rights import Missing
from router.store.servers.rights import missing as missing_rights
from router.store.servers.sentinels import SentinelPrimary
from router.store.tasks.delivery_failures import RedisDeliveryFailures
from router.store.tasks.store import RedisTasks
from router.store.tenants.inspect import RedisInspector
from router.store.tenants.limit_usage import RedisLimitUsage
from router.store.tenants.walk import RedisTenants


class StoreHooks(NamedTuple):
    """Callbacks of the store."""

    lanes: LaneHooks
    audit_read: Callable[[float], None]
    moved: Callable[[Move, BreakerTurn], None]


class Store:
    """All Redis adapters of a pod. Nothing is connected before `open`."""

    def __init__(self, s: Settings, hooks: StoreHooks) -> None:
        self.nodes: Nodes = redis_nodes(s)
        self.keys = Keys(s.store_schema, s.partitions)
        self._script = script = decide_script()
        self._server = redis_server(s)
        self.missing = Missing()
        self.script_version = script.version
        packer = RowPacker(self.keys, os.urandom, script=script.version, message_index=s.message_index)
        self.lanes = Lanes(
            keys=self.keys, nodes=self.nodes, packer=packer, script=script, settings=lane_settings(s), hooks=hooks.lanes
        )
        self._replicas = replicas = Replicas(self.nodes, s.wait_replicas, on_unconfirmed=hooks.lanes.on_unconfirmed)
        self.decisions = RedisDecisions(
            self.keys, self.nodes, self.lanes, wait_ms=s.decide_wait_effective_ms, replicas=replicas
        )
        self.policies = RedisPolicies(self.nodes, self.keys, bounds=policy_bounds(s), replicas=replicas)
        self.figures = RedisFigures(self.keys, self.nodes)
        self.tasks = RedisTasks(
            self.keys,
            self.nodes,
            audit_max_len=s.audit_max_len,
            deadline_max_ms=s.deadline_max_ms,
            shared_calls=not s.redis_cluster,
            replicas=replicas,
            on_moved=hooks.moved,
        )
        # Audit reads (people, exports) may go to a replica.
        self._read_nodes = redis_replica(s) or self.nodes
        self.audit = RedisAudit(self.keys, self._read_nodes, on_read=hooks.audit_read)
        bounds = retention_bounds(s)
        self.retention = RedisRetention(self.keys, self.nodes, bounds, shared_calls=not s.redis_cluster)
        self.unknown = RedisUnknownTenants(self.keys, self.nodes, bounds.ttl_ms)
        self.inspector = RedisInspector(self.keys, self.nodes)
        self.tenants = RedisTenants(self.keys, self.nodes, replicas)
        self.levers = RedisLevers(
            self.keys,
            self.nodes,
            lever_scripts(),
            audit_max_len=s.audit_max_len,
            audit_ms=audit_ms(s),
            replicas=replicas,
        )
        self.meta = RedisMeta(self.keys, self.nodes)
        self.servers = RedisServers(self.nodes, stated_policy=s.redis_maxmemory_policy, allow_eviction=s.allow_eviction)
        self.epochs = RedisEpochs(self.keys, self.nodes)
        self.failures = RedisDeliveryFailures(self.keys, self.nodes)
        self.claims = RedisClaims(self.keys, self.nodes, replicas)
        self.extensions = RedisExtensions(self.keys, self.nodes)
        self.measure = RedisLimitUsage(self.keys, self.nodes, shared_calls=not s.redis_cluster)

    async def open(self) -> None:
        """Connect, check the rights of this pod, and read the server's clock.

        :raises StoreForbidden: a right is missing that everything needs; `missing` has those that parts need.
        :raises StoreError: Redis did not answer.
        """
        await self.nodes.open()
        self.missing = await missing_rights(self.nodes, self._server)
        if self.missing.refusal is not None:
            raise StoreForbidden(self.missing.refusal)
        functions = self.missing.functions_work
        self.lanes.use(self._script if functions else self._script.without_functions())
        self.tasks.use_functions(functions)
        await self.lanes.open()

    async def degraded(self) -> dict[Degradable, str]:
        """The parts that this server does not allow, or that it gives no information about, with the reasons.

        :raises StoreError: Redis did not answer, or may evict keys.
        """
        eviction = await self.servers.eviction()
        if eviction.problems:
            raise StoreError("; ".join(eviction.problems))
        off = {part: self.missing.reason(part) for part in self.missing.parts}
        # Without INFO, only the eviction policy matters, and the setting states it.
        off.pop(Degradable.STORE_FACTS, None)
        if eviction.unknown is not None:
            off[Degradable.STORE_FACTS] = eviction.unknown
        return off

    async def renew(self, s: Settings) -> None:
        """Use the credentials and TLS files of these settings, on one connection after the other.

        :raises StoreError: Redis refuses them, or is unavailable; connections that are not replaced yet stay.
        """
        access, sentinel = redis_access(s), redis_sentinel(s)
        await self.nodes.renew(access)
        if isinstance(self.nodes, SentinelPrimary) and sentinel is not None:
            await self.nodes.renew_sentinels(sentinel)
        if self._read_nodes is not self.nodes:
            await self._read_nodes.renew(access)
        await self._replicas.close()
        await self.lanes.renew()

    async def ping(self) -> None:
        """Return when every node has answered.

        :raises StoreError: a node did not answer.
        """
        await self.nodes.each("PING")

    async def close(self) -> None:
        """Close every connection."""
        await self.lanes.close()
        await self._replicas.close()
        if self._read_nodes is not self.nodes:
            await self._read_nodes.close()
        await self.nodes.close()
