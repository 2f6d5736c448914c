"""fakeredis in the place of a server, for the parts of the store that run no script.

It knows no CLUSTER, EVAL_RO, INFO, CONFIG or MEMORY USAGE. What needs those is tested on a real server.
"""

from fakeredis import FakeAsyncRedis, FakeServer

from router.store.servers.nodes import Client, SingleNode


class FakeNode(SingleNode):
    """A server of its own, in this process. Calls, batches, scans and errors go the way of `SingleNode`."""

    def __init__(self) -> None:
        Client.__init__(self, FakeAsyncRedis(server=FakeServer(version=(7, 0)), protocol=2))
