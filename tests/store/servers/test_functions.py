"""Scripts that are function libraries, called through the nodes: settle."""

from pathlib import Path

import pytest
from redis import Redis

from router.domain.tasks.task import Action, BreakerTurn, Move, Moved
from router.errors import NotReplicated
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.store.servers.replicas import Replicas
from router.store.tasks.store import RedisTasks, settle_script
from tests.servers import LimitedValkey
from tests.store.harness import FEATURES
from tests.store.pods import fresh_keys

NAME = settle_script().call[1]


def note(tenant: str = "acme") -> Move:
    """A move that writes an audit record and changes no task."""
    return Move(tenant, bytes(16), Action.RESULT_LATE, FEATURES, note=True)


async def noted(tasks: RedisTasks, *tenants: str) -> None:
    """The call was made for every tenant."""
    moves = [note(t) for t in tenants or ("acme",)]
    assert await tasks.move(moves) == [Moved(BreakerTurn.UNCHANGED)] * len(moves)


def records(client: Redis, keys: Keys, tenant: str = "acme") -> int:
    """The number of audit records that the calls have written."""
    return int(client.xlen(keys.tenant(tenant).audit))


def calls(client: Redis, command: str) -> int:
    """The number of such commands that the server has executed."""
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def libraries(client: Redis) -> set[bytes]:
    """The function libraries of the server."""
    return {library[1] for library in client.function_list()}


async def test_a_flushed_library_is_loaded_again(nodes: SingleNode, single: Redis) -> None:
    """The call that finds it missing is executed once; the next one is FCALL."""
    keys = fresh_keys()
    tasks = RedisTasks(keys, nodes)
    await noted(tasks)
    for flushed in (1, 2):
        single.function_flush()
        await noted(tasks)
        assert records(single, keys) == 2 * flushed
        assert NAME in libraries(single)
        before = calls(single, "eval"), calls(single, "fcall")
        await noted(tasks)
        assert (calls(single, "eval"), calls(single, "fcall")) == (before[0], before[1] + 1)


@pytest.mark.parametrize("allowed", ["+@all -fcall -function", "+@all -function|load"])
async def test_without_functions_calls_are_scripts(servers: None, tmp_path: Path, allowed: str) -> None:
    """Also after the server has lost its scripts, and with the flags of the library: a full Redis settles."""
    with LimitedValkey(tmp_path, f"~* {allowed}") as server, Redis.from_url(server.url) as client:
        nodes, keys = SingleNode(server.pod_url), fresh_keys()
        tasks = RedisTasks(keys, nodes)
        tasks.use_functions(False)
        await noted(tasks)
        client.config_set("maxmemory", 1)
        client.script_flush()
        await noted(tasks)
        await noted(tasks)
        assert records(client, keys) == 3
        assert libraries(client) == set()
        await nodes.close()


async def test_a_library_that_cannot_be_loaded(servers: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The right was taken after the pod's start: calls are executed, and the log has the reason."""
    with LimitedValkey(tmp_path, "~* +@all -function|load") as server, Redis.from_url(server.url) as client:
        nodes, keys = SingleNode(server.pod_url), fresh_keys()
        tasks = RedisTasks(keys, nodes)
        await noted(tasks)
        await noted(tasks)
        assert records(client, keys) == 2
        await nodes.close()
    assert "did not load a script" in caplog.text


async def test_a_full_server_that_has_lost_the_library(servers: None, tmp_path: Path) -> None:
    """It loads no library and settles all the same, because ending work frees it."""
    with LimitedValkey(tmp_path) as server, Redis.from_url(server.url) as client:
        nodes, keys = SingleNode(server.pod_url), fresh_keys()
        client.config_set("maxmemory", 1)
        await noted(RedisTasks(keys, nodes))
        assert records(client, keys) == 1
        assert libraries(client) == set()
        await nodes.close()


async def test_calls_that_wait_for_replicas_load_it_too(redis_url: str, single: Redis) -> None:
    """The call is executed once, and the error says that it was, not that a function is missing."""
    nodes, keys = SingleNode(redis_url), fresh_keys()
    replicas = Replicas(nodes, 1, wait_ms=20)
    single.function_flush()
    with pytest.raises(NotReplicated, match="settle was executed"):
        await RedisTasks(keys, nodes, replicas=replicas).move([note()])
    assert records(single, keys) == 1
    assert NAME in libraries(single)
    await replicas.close()
    await nodes.close()


def test_flags_go_with_the_function() -> None:
    """As a library its function has them, as a script its first line."""
    library = settle_script()
    assert b"flags={'allow-oom'}" in library.source
    assert library.without_functions().source.startswith(b"#!lua flags=allow-oom\n")
    assert library.without_functions().version == library.version
