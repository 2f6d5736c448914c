"""Redis Cluster: slots that move from node to node, and a Cluster with replicas as the server of a fleet."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from redis import Redis

from tests.servers import START_TIMEOUT_S, ValkeyCluster, ValkeyNode


class Move:
    """One slot going from its node to the next one."""

    def __init__(self, cluster: ValkeyCluster, slot: int) -> None:
        self.slot = str(slot)
        owner = next(i for i, (first, last) in enumerate(cluster.SLOTS) if first <= slot <= last)
        self.source: ValkeyNode = cluster.nodes[owner]
        self.target: ValkeyNode = cluster.nodes[(owner + 1) % 3]
        self.others = [n for n in cluster.nodes if n not in (self.source, self.target)]
        self.ids = {n: n.ask("CLUSTER", "MYID") for n in cluster.nodes}

    def begin(self) -> None:
        """From now on the source answers ASK or TRYAGAIN for what it has not."""
        self.source.ask("CONFIG", "RESETSTAT")
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.ids[self.source])
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.ids[self.target])

    def refused(self, *words: str) -> None:
        """Returns when the source has refused something in one of these words."""
        give_up = time.monotonic() + 5
        while not any(f"errorstat_{w}" in self.source.ask("INFO", "errorstats") for w in words):
            assert time.monotonic() < give_up, f"the source never said {words}"

    def keys(self) -> None:
        """Every key of the slot goes over."""
        with Redis(port=self.source.port, protocol=2) as client:
            while found := client.execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, 100):
                client.execute_command("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5_000, "KEYS", *found)

    def end(self) -> None:
        """The target owns it; everybody is told."""
        for node in (self.target, self.source, *self.others):
            node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self.ids[self.target])


def follow(head: ValkeyNode, of: ValkeyNode, replica: ValkeyNode) -> None:
    """`replica` joins the Cluster of `head` and is in step with `of`."""
    head.ask("CLUSTER", "MEET", "127.0.0.1", str(replica.port), str(replica.bus_port))
    wanted = of.ask("CLUSTER", "MYID")
    wait(lambda: wanted in replica.ask("CLUSTER", "NODES"))  # during the handshake a node has another id
    replica.ask("CLUSTER", "REPLICATE", wanted)
    wait(lambda: "connected" in replica.ask("ROLE"))


def wait(condition: Callable[[], bool]) -> None:
    """Gossip and replication cannot be waited for by an event."""
    give_up = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < give_up, "the Cluster did not come so far"
        time.sleep(0.02)


class ClusterOfFleet(ValkeyNode):
    """A whole Cluster in the place of a fleet's one server, with a replica of each primary if `replicas`."""

    def __init__(self, data: Path, args: tuple[str, ...] = (), *, replicas: bool = False) -> None:
        super().__init__(data)
        self.set = ValkeyCluster(data, args)
        self.replicas = [ValkeyNode(data / f"replica{n}", args) for n in range(len(self.set.nodes) * replicas)]

    @property
    def url(self) -> str:
        """The address of one node."""
        return self.set.url

    @property
    def pods_env(self) -> dict[str, str]:
        """What a pod needs to know."""
        return {"ROUTER_REDIS_URL": self.url, "ROUTER_REDIS_CLUSTER": "true"}

    def start(self) -> Self:
        """All nodes; returns when they agree and replicas are in step."""
        self.set.__enter__()
        head = self.set.nodes[0]
        self.port, self.process = head.port, head.process
        for primary, replica in zip(self.set.nodes, self.replicas, strict=False):
            replica.start()
            follow(head, primary, replica)
        return self

    def stop(self) -> None:
        """All nodes."""
        for replica in self.replicas:
            replica.stop()
        self.set.__exit__()
        self.process = None
