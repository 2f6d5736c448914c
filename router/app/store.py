"""The store of a pod: one connection road for decisions, one client for everything else."""

import os

from router.app.rooms import audit_ms, lane_settings, policy_bounds, redis_access
from router.settings import Settings
from router.store.audit import RedisAudit
from router.store.claims import RedisClaims
from router.store.decisions import RedisDecisions, decide_script
from router.store.extensions import RedisExtensions
from router.store.figures import RedisFigures
from router.store.inspect import RedisInspector
from router.store.keys import Keys
from router.store.lane import LaneHooks
from router.store.lanes import Lanes
from router.store.levers import RedisLevers, lever_scripts
from router.store.meta import RedisEpochs, RedisMeta
from router.store.nodes import Cluster, Nodes, SingleNode
from router.store.policies import RedisPolicies
from router.store.rows import RowPacker
from router.store.tasks import RedisTasks


class Store:
    """All that a pod has of Redis. Nothing is connected before `open`."""

    def __init__(self, s: Settings, hooks: LaneHooks) -> None:
        kind = Cluster if s.redis_cluster else SingleNode
        self.nodes: Nodes = kind(s.redis_url, redis_access(s))
        self.keys = Keys(s.store_schema, s.partitions)
        packer = RowPacker(self.keys, os.urandom)
        self.lanes = Lanes(self.keys, self.nodes, packer, decide_script(), lane_settings(s), hooks)
        self.decisions = RedisDecisions(self.keys, self.nodes, self.lanes, s.store_deadline_ms)
        self.tasks = RedisTasks(self.keys, self.nodes, audit_max_len=s.audit_max_len, shared_calls=not s.redis_cluster)
        self.policies = RedisPolicies(self.nodes, self.keys, bounds=policy_bounds(s))
        self.audit = RedisAudit(self.keys, self.nodes)
        self.figures = RedisFigures(self.keys, self.nodes)
        self.inspector = RedisInspector(self.keys, self.nodes)
        self.levers = RedisLevers(
            self.keys, self.nodes, lever_scripts(), audit_max_len=s.audit_max_len, audit_ms=audit_ms(s)
        )
        self.meta = RedisMeta(self.keys, self.nodes, allow_eviction=s.allow_eviction)
        self.epochs = RedisEpochs(self.keys, self.nodes)
        self.claims = RedisClaims(self.keys, self.nodes)
        self.extensions = RedisExtensions(self.keys, self.nodes)

    async def open(self) -> None:
        """Connect, and learn the server's clock.

        :raises StoreError: Redis did not answer.
        """
        await self.nodes.open()
        await self.lanes.open()

    async def ping(self) -> None:
        """Returns when every node has answered.

        :raises StoreError: one did not.
        """
        await self.nodes.each("PING")

    async def close(self) -> None:
        """Close every connection."""
        await self.lanes.close()
        await self.nodes.close()
