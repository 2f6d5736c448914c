"""Which lane the rows of a partition take, and what happens when a Cluster moves a partition.

A partition has one hash tag, so it lies in one slot of one node. The map of partitions to lanes is filled on first use
and cleared when it is found to be out of date. A node that refuses a call names the reason, and executes nothing:

- MOVED: the slot belongs to another node. The call is sent to that node, and the slots are loaded again. Lanes of nodes
  without partitions are closed.
- ASK: the slot is moving, and the call's keys are new or at the other node. Only this call goes there, with ASKING.
- MOVED or ASK without a host name (`store.servers.endpoints`): the slots are loaded again, and the call is sent
  again after a few ms.
- TRYAGAIN: the slot is moving, and some of the call's keys are new or at the other node. The call is sent again after a
  few ms.

The deadline of a row bounds all of this: a row that is still unanswered then is `Unavailable`.
"""

import asyncio
import logging
import time

from redis.exceptions import AskError, MovedError, ReadOnlyError, ResponseError, TryAgainError

from router.errors import StoreError
from router.log_throttle import LogThrottle
from router.store.decide.availability import LaneHooks
from router.store.decide.batch import Batch
from router.store.decide.calls import LaneSettings
from router.store.decide.lane import Lane
from router.store.decide.rows import RowPacker
from router.store.keys import Keys
from router.store.scripts.load import Script
from router.store.servers.endpoints import HostUnknownError
from router.store.servers.link import Link
from router.store.servers.nodes import Address, Nodes
from router.telemetry import Event

log = logging.getLogger(__name__)
_REPLY_TIMEOUT_S = 1.0
_TRY_AGAIN_S = 0.005


class Lanes:
    """One lane per node. With one node all partitions share a call; in a Cluster each partition has its own."""

    def __init__(
        self,
        keys: Keys,
        nodes: Nodes,
        packer: RowPacker,
        script: Script,
        settings: LaneSettings,
        hooks: LaneHooks,
    ) -> None:
        self._keys = keys
        self._nodes = nodes
        self.packer = packer
        self._script = script
        self.settings = settings
        # A connection outlives the deadlines that make its lane down: a late reply is still read.
        self._reply_timeout_s = max(_REPLY_TIMEOUT_S, settings.deadline_ms * settings.missed_until_down / 1000)
        self._hooks = hooks
        self._lanes: dict[Address, Lane] = {}
        self._by_partition: list[tuple[Lane, int] | None] = [None] * keys.partitions
        self._refreshing: asyncio.Task[None] | None = None
        self._opened = False
        self._throttle = LogThrottle(time.monotonic)
        self._loop = asyncio.get_running_loop()

    def of(self, partition: int) -> tuple[Lane, int]:
        """The lane of a partition's node, and the group within which its rows may share a call."""
        return self._by_partition[partition] or self._find(partition)

    def _find(self, partition: int) -> tuple[Lane, int]:
        address = self._nodes.address_of(self._keys.tag(partition))
        lane_and_group = self._lane_at(address), (0 if self._nodes.shares_calls else partition)
        self._by_partition[partition] = lane_and_group
        return lane_and_group

    def _lane_at(self, address: Address) -> Lane:
        lane = self._lanes.get(address)
        if lane is None:
            link = Link(self._nodes.connections(address), self._reply_timeout_s)
            lane = Lane(link, self.packer, self._script, self.settings, self._hooks, self._redirect)
            self._lanes[address] = lane
        return lane

    async def renew(self) -> None:
        """Replace the connection of each lane, one at a time, by one with the current credentials of the nodes.

        :raises StoreUnavailable: a node refuses them; its lane keeps the old connection.
        """
        for address, lane in list(self._lanes.items()):
            await lane.renew(self._nodes.connections(address))

    def use(self, script: Script) -> None:
        """Set the form in which lanes created from now on call the script. Call it before `open`, or before the first
        row.
        """
        self._script = script

    @property
    def down(self) -> bool:
        """Whether any node is down."""
        return any(lane.down for lane in self._lanes.values())

    def _redirect(self, batch: Batch, refusal: ResponseError) -> bool:
        """Send a refused batch to where its partition is. False: the refusal is no redirection."""
        if None in self._lanes:
            # One server. Its client says at the next start that it is a node of a Cluster.
            return False
        if isinstance(refusal, ReadOnlyError):
            # The primary has moved. Nothing was executed, so the callers may retry.
            self._learn_slots()
            return False
        if isinstance(refusal, (MovedError, HostUnknownError)):
            self._by_partition = [None] * self._keys.partitions
            self._learn_slots()
        if isinstance(refusal, MovedError):
            self._lane_at((refusal.host, refusal.port)).resend(batch)
        elif isinstance(refusal, AskError):
            batch.asking = True
            self._lane_at((refusal.host, refusal.port)).resend(batch)
        elif isinstance(refusal, (TryAgainError, HostUnknownError)):
            # The rows' deadline bounds the retries.
            group = batch.waiting[0].group
            self._loop.call_later(_TRY_AGAIN_S, lambda: self.of(group)[0].resend(batch))
        else:
            return False
        return True

    async def _refresh(self) -> None:
        try:
            await self._nodes.refresh()
            owners = {self._nodes.address_of(self._keys.tag(p)) for p in range(self._keys.partitions)}
        except StoreError as fault:
            # While a node is down this is tried every second, and the outage is already logged.
            if not self.down and (suppressed := self._throttle.due(str(fault))) is not None:
                log.warning(
                    "the servers' addresses could not be read again: %s",
                    fault,
                    extra={"event": Event.STORE_REFUSES, "unsaid": suppressed},
                )
        else:
            for address in self._lanes.keys() - owners:
                await self._lanes.pop(address).retire()
        finally:
            self._by_partition = [None] * self._keys.partitions
            self._refreshing = None

    def tick(self) -> None:
        """Detect an outage, or its end, without a request. Call it about once a second.

        While a node is down, the slots are loaded again from the other nodes: its slots may have a new owner. A primary
        that sentinels name is asked for every time.
        """
        if not self._opened:
            return
        if self.down or self._nodes.follows:
            self._learn_slots()
        try:
            owners = {self.of(p)[0] for p in range(self._keys.partitions)}
        except StoreError as fault:
            log.warning("a partition has no node: %s", fault)
            self._learn_slots()
            return
        for lane in owners:
            lane.tick()

    def _learn_slots(self) -> None:
        if self._refreshing is None:
            self._refreshing = self._loop.create_task(self._refresh())

    async def open(self) -> None:
        """Connect to every node that has a partition; returns when the first try of each has ended."""
        lanes = {self.of(p)[0] for p in range(self._keys.partitions)}
        self._opened = True
        await asyncio.gather(*(lane.open() for lane in lanes))

    async def close(self) -> None:
        """Close every lane; waiting rows are answered `Unavailable`."""
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
