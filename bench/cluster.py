"""A Redis Cluster of primaries, each with an equal share of the slots."""

import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from bench.processes import HOST, BenchFailed, Process, free_port, start_valkey

_SLOTS = 16_384
_AGREED_S = 30.0
_OPTIONS = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")


def start_cluster(folder: Path, cpus: str, primaries: int) -> list[tuple[Process, int]]:
    """Processes and ports of nodes that agree on all slots.

    :raises BenchFailed: they do not agree in time.
    """
    buses = [free_port() for _ in range(primaries)]
    nodes: list[tuple[Process, int]] = []
    try:
        for bus in buses:
            options = (*_OPTIONS, "--cluster-port", str(bus))
            nodes.append(start_valkey(folder, cpus, appendfsync=None, options=options))
        _join([port for _, port in nodes], buses)
    except BaseException:
        for process, _ in nodes:
            process.stop()
        raise
    return nodes


def _join(ports: list[int], buses: list[int]) -> None:
    clients = [Redis(HOST, port) for port in ports]
    for number, client in enumerate(clients):
        first, end = (_SLOTS * n // len(clients) for n in (number, number + 1))
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)  # type: ignore[no-untyped-call]
        # Nodes that start with equal epochs would have to settle who owns what.
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # type: ignore[no-untyped-call]
    for port, bus in zip(ports[1:], buses[1:], strict=True):
        clients[0].execute_command("CLUSTER", "MEET", HOST, port, bus)  # type: ignore[no-untyped-call]
    _until(lambda: all(_agrees(client, len(clients)) for client in clients))


def _agrees(client: Redis, nodes: int) -> bool:
    said = client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
    text = said.decode() if isinstance(said, bytes) else "\r\n".join(f"{k}:{v}" for k, v in said.items())
    return "cluster_state:ok" in text and f"cluster_known_nodes:{nodes}" in text


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _AGREED_S
    while not condition():
        if time.monotonic() > give_up:
            raise BenchFailed(f"the Cluster's nodes did not agree within {_AGREED_S:g} s")
        time.sleep(0.05)
