"""The store of a pod: the lanes carry decide calls, one client carries everything else."""

import os
from collections.abc import Callable
from typing import NamedTuple

from router.app.adapter_settings import audit_ms, lane_settings, policy_bounds, redis_access, retention_bounds
from router.domain.task import BreakerTurn, Move
from router.settings import Settings
from router.store.audit import RedisAudit
from router.store.claims import RedisClaims
from router.store.cluster import Cluster
from router.store.decide.availability import LaneHooks
from router.store.decide.lanes import Lanes
from router.store.decide.rows import RowPacker
from router.store.decisions import RedisDecisions, decide_script
from router.store.delivery_failures import RedisDeliveryFailures
from router.store.extensions import RedisExtensions
from router.store.figures import RedisFigures
from router.store.inspect import RedisInspector
from router.store.keys import Keys
from router.store.levers import RedisLevers, lever_scripts
from router.store.measure import RedisMeasure
from router.store.meta import RedisEpochs, RedisMeta
from router.store.nodes import Nodes, SingleNode
from router.store.policies import RedisPolicies
from router.store.retention import RedisRetention
from router.store.tasks import RedisTasks
from router.store.tenants import RedisTenants
from router.store.unknown_tenants import RedisUnknownTenants


class StoreHooks(NamedTuple):
    """Callbacks of the store."""

    lanes: LaneHooks
    audit_read: Callable[[float], None]
    moved: Callable[[Move, BreakerTurn], None]


class Store:
    """All Redis adapters of a pod. Nothing is connected before `open`."""

    def __init__(self, s: Settings, hooks: StoreHooks) -> None:
        nodes_type = Cluster if s.redis_cluster else SingleNode
        self.nodes: Nodes = nodes_type(s.redis_url, redis_access(s))
        self.keys = Keys(s.store_schema, s.partitions)
        script = decide_script()
        self.script_version = script.version
        packer = RowPacker(self.keys, os.urandom, script=script.version)
        self.lanes = Lanes(
            keys=self.keys, nodes=self.nodes, packer=packer, script=script, settings=lane_settings(s), hooks=hooks.lanes
        )
        self.decisions = RedisDecisions(self.keys, self.nodes, self.lanes, s.store_deadline_ms)
        self.policies = RedisPolicies(self.nodes, self.keys, bounds=policy_bounds(s))
        self.figures = RedisFigures(self.keys, self.nodes)
        self.tasks = RedisTasks(
            self.keys,
            self.nodes,
            audit_max_len=s.audit_max_len,
            shared_calls=not s.redis_cluster,
            on_moved=hooks.moved,
        )
        # Audit reads (people, exports) may go to a replica.
        self._read_nodes = (
            self.nodes if s.redis_replica_url is None else SingleNode(s.redis_replica_url, redis_access(s))
        )
        self.audit = RedisAudit(self.keys, self._read_nodes, on_read=hooks.audit_read)
        bounds = retention_bounds(s)
        self.retention = RedisRetention(self.keys, self.nodes, bounds, shared_calls=not s.redis_cluster)
        self.unknown = RedisUnknownTenants(self.keys, self.nodes, bounds.ttl_ms)
        self.inspector = RedisInspector(self.keys, self.nodes)
        self.tenants = RedisTenants(self.keys, self.nodes)
        self.levers = RedisLevers(
            self.keys, self.nodes, lever_scripts(), audit_max_len=s.audit_max_len, audit_ms=audit_ms(s)
        )
        self.meta = RedisMeta(self.keys, self.nodes, allow_eviction=s.allow_eviction)
        self.epochs = RedisEpochs(self.keys, self.nodes)
        self.failures = RedisDeliveryFailures(self.keys, self.nodes)
        self.claims = RedisClaims(self.keys, self.nodes)
        self.extensions = RedisExtensions(self.keys, self.nodes)
        self.measure = RedisMeasure(self.keys, self.nodes, shared_calls=not s.redis_cluster)

    async def open(self) -> None:
        """Connect and read the server's clock.

        :raises StoreError: Redis did not answer.
        """
        await self.nodes.open()
        await self.lanes.open()

    async def ping(self) -> None:
        """Return when every node has answered.

        :raises StoreError: a node did not answer.
        """
        await self.nodes.each("PING")

    async def close(self) -> None:
        """Close every connection."""
        await self.lanes.close()
        if self._read_nodes is not self.nodes:
            await self._read_nodes.close()
        await self.nodes.close()
