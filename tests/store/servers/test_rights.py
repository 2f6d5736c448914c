"""Rights in Redis: the table against the code, and stores that lack some of them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

import router
from router.domain.access import Party
from router.domain.decide.outcome import Admitted, LimitHit, Replay
from router.domain.degraded import Degradable
from router.domain.policy.limits import limit
from router.domain.policy.vocabulary import Resource, Scope
from router.errors import StoreError, StoreForbidden
from router.installed_files import lua_dir
from router.store.decisions import decide_script
from router.store.scripts.flatten import flat
from router.store.servers.nodes import SingleNode
from router.store.servers.rights import Missing, Server, acl_rules, commands, missing
from tests.servers import LimitedValkey
from tests.store.harness import MINUTE, Ask, policy, request
from tests.store.pods import Pod, fresh_keys

STORE = Path(router.__file__).parent / "store"
SELFTEST = Path(router.__file__).parent / "selftest"
EVERYTHING = Server(cluster=True, wait_replicas=True)
# redis-py: `scan_iter` sends SCAN, the Cluster client CLUSTER SLOTS and ASKING; a lane writes ASKING as bytes.
OF_THE_CLIENT = {"scan", "cluster|slots", "asking"}
_WORD = re.compile(r"[A-Z]{3,}")
_IN_LUA = re.compile(r"\bp?call\(\s*'(\w+)'(?:, '(\w+)')?")
# Words in the code that are commands as well, and are none there.
_NO_COMMANDS = {"keys", "type"}
_NEEDS_NO_RIGHT = {"auth"}


def sources(*folders: Path) -> Iterator[ast.AST]:
    """Every node of every module; without docstrings, as those are no arguments."""
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            if path.name not in {"rights.py", "scripts.py"}:
                yield from ast.walk(ast.parse(path.read_text()))
    yield from ast.walk(ast.parse("('EVAL', 'EVALSHA', 'FCALL'), ('FUNCTION', 'LOAD')"))


def in_python(known: set[str], *folders: Path) -> set[str]:
    """Commands in the code: constants that the server knows, with a known subcommand behind them."""
    found: set[str] = set()
    for node in sources(*folders):
        words = [c.value for c in ast.iter_child_nodes(node) if isinstance(c, ast.Constant) if isinstance(c.value, str)]
        for i, word in enumerate(words):
            if _WORD.fullmatch(word) is None:
                continue
            pair = "|".join(words[i : i + 2]).lower()
            if "|" in pair and pair in known:
                found.add(pair)
            elif word.lower() in known and not any(k.startswith(f"{word.lower()}|") for k in known):
                found.add(word.lower())
    return found - _NO_COMMANDS - _NEEDS_NO_RIGHT


def in_lua(known: set[str], *names: str) -> set[str]:
    """Commands that scripts call; of all scripts, if none is named."""
    texts = [flat(name, lua_dir(), {}) for name in names or [path.stem for path in lua_dir().glob("*.lua")]]
    calls = {call for text in texts for call in _IN_LUA.findall(text)}
    pairs = {(name.lower(), f"{name}|{behind}".lower()) for name, behind in calls}
    return {pair if pair in known else name for name, pair in pairs}


@pytest.fixture(scope="session")
def known(single: Redis) -> set[str]:
    """Every command of the server, subcommands with their container."""
    names = {n.decode() for n in single.execute_command("COMMAND LIST")}  # type: ignore[no-untyped-call]
    for container in ("memory", "function", "xinfo", "cluster", "client", "script", "acl", "config"):
        (about,) = single.execute_command("COMMAND DOCS", container).values()  # type: ignore[no-untyped-call]
        names |= {n.decode() for n in about[b"subcommands"]}
    return names


def test_a_pod_has_what_the_code_uses_and_no_more(known: set[str]) -> None:
    """A command that the code does not use is not granted; one that it uses is."""
    granted = set(commands(Party.POD, EVERYTHING))
    used = in_python(known, STORE) | in_lua(known) | OF_THE_CLIENT | {"ping"}
    assert granted - used == set()
    assert used - granted == set()


def test_the_other_parties_have_less(known: set[str]) -> None:
    """People have no rights that neither a pod nor the selftest needs, each role more than the one below, and a viewer
    writes nothing."""
    pod = set(commands(Party.POD, EVERYTHING))
    viewer, operator, admin = (set(commands(p, EVERYTHING)) for p in (Party.VIEWER, Party.OPERATOR, Party.ADMIN))
    assert viewer < operator < admin
    levers = "set_lever reset_breaker switch_tenant record_act forget_request"
    assert in_lua(known, *levers.split()) <= operator
    assert in_lua(known, "apply_policy", "delete_policy", "load_policies", "purge_tenant") <= admin
    assert admin - pod <= in_python(known, SELFTEST)
    assert not viewer & {"set", "del", "unlink", "hset", "xadd", "zadd", "function|load"}
    assert not operator & {"hset", "hdel", "lpush", "zadd", "function|load"}


def test_the_rules_name_both_kinds_of_keys() -> None:
    """Remembered answers have no colon behind the schema."""
    rules = acl_rules(Party.POD, Server(schema="r9")).split()
    assert [r for r in rules if "~" in r] == ["~r9:*", "~r9{*"]
    assert "+select" in acl_rules(Party.POD, Server(database=3)).split()
    assert {"+wait"} <= set(acl_rules(Party.POD, Server(wait_replicas=True)).split())
    assert not {"+wait", "+select", "+asking", "+cluster|slots"} & set(rules)


# A server that gives less


POD = acl_rules(Party.POD, Server(schema="t1"))
WALKS, LIBRARY, FACTS = Degradable.STORE_WALKS, Degradable.FUNCTION_LIBRARY, Degradable.STORE_FACTS
RANGES = Degradable.STATE_RANGES


@pytest.mark.parametrize(
    ("rules", "withheld", "found"),
    [
        ("~* &* +@all", (), Missing()),
        (POD, (), Missing()),
        (POD, ("CONFIG", "CLIENT", "SCRIPT", "ACL", "WAIT", "CLUSTER", "COMMAND"), Missing()),
        (f"{POD} -info", (), Missing(parts={FACTS: ("info",)})),
        (POD, ("MEMORY", "DBSIZE"), Missing(parts={WALKS: ("dbsize", "memory|usage")})),
        (f"{POD} -scan -getrange", (), Missing(parts={WALKS: ("getrange", "scan")})),
        (f"{POD} -setrange", (), Missing(parts={RANGES: ("setrange",)})),
        (POD, ("SETRANGE", "MEMORY"), Missing(parts={RANGES: ("setrange",), WALKS: ("memory|usage",)})),
        (f"{POD} -xinfo", (), Missing(("xinfo|stream",))),
        (
            POD,
            ("FUNCTION", "FCALL"),
            Missing(parts={LIBRARY: ("fcall", *(f"function|{x}" for x in ("delete", "list", "load")))}),
        ),
        (f"{POD} -get -xadd -info", (), Missing(("get", "xadd"), {FACTS: ("info",)})),
        (POD, ("TIME",), Missing(("time",))),
        (POD.replace("~t1{* ", ""), (), Missing(("keys t1{*",))),
        (POD.replace("~t1:* ", ""), (), Missing(("keys t1:*",))),
        (POD.replace("~t1", "~t2"), (), Missing(("keys t1:*", "keys t1{*"))),
        (POD.replace("~t1", "~t2"), ("TIME",), Missing(("time", "keys t1:*", "keys t1{*"))),
        (POD.replace("~t1:* ~t1{*", "%R~t1:* ~t1{*"), (), Missing(("keys t1:*",))),
    ],
)
async def test_what_is_missing(
    servers: None, tmp_path: Path, rules: str, withheld: tuple[str, ...], found: Missing
) -> None:
    """By ACL or renamed away; what nothing needs is not missed."""
    with LimitedValkey(tmp_path, rules, withheld=withheld) as server:
        nodes = SingleNode(server.pod_url)
        await nodes.open()
        assert await missing(nodes, Server(schema="t1")) == found
        await nodes.close()


async def rights_of(nodes: SingleNode) -> Missing:
    """What a pod does first."""
    await nodes.open()
    return await missing(nodes, Server(schema="t1"))


@pytest.mark.parametrize("gone", ["EVAL", "PING"])
async def test_without_the_first_commands_the_refusal_names_them(servers: None, tmp_path: Path, gone: str) -> None:
    """The check itself needs EVAL, and the connection PING; WAIT only where replicas are waited for."""
    with LimitedValkey(tmp_path, f"{POD} -{gone.lower()}") as server:
        nodes = SingleNode(server.pod_url)
        with pytest.raises(StoreForbidden, match=f"does not allow {gone}"):
            await rights_of(nodes)
        await nodes.close()


async def test_wait_is_needed_where_replicas_are_waited_for(servers: None, tmp_path: Path) -> None:
    """ROUTER_WAIT_REPLICAS without WAIT would leave every outcome unknown."""
    with LimitedValkey(tmp_path, POD) as server:
        nodes = SingleNode(server.pod_url)
        refusal = (await missing(nodes, Server(schema="t1", wait_replicas=True))).refusal
        assert refusal is not None
        assert "WAIT" in refusal
        await nodes.close()


async def test_refusals_never_repeat_the_arguments(servers: None, tmp_path: Path) -> None:
    """An unknown command's words may be a tenant's; a refused one of a batch is told from other refusals."""
    with LimitedValkey(tmp_path, f"{POD} -hget", withheld=("MEMORY",)) as server:
        nodes = SingleNode(server.pod_url)
        for commands_ in ([("MEMORY", "USAGE", "t1:secret")], [("GET", "t1:x"), ("MEMORY", "USAGE", "t1:secret")]):
            with pytest.raises(StoreForbidden) as refusal:
                await nodes.gather(commands_)
            assert "secret" not in str(refusal.value)
        with pytest.raises(StoreForbidden, match="HGET"):
            await nodes.call("HGET", "t1:x", "f")
        await nodes.call("SET", "t1:x", 1)
        with pytest.raises(StoreError) as damaged:
            await nodes.call("HLEN", "t1:x")
        assert not isinstance(damaged.value, StoreForbidden)
        await nodes.close()


# Without functions


async def test_decisions_without_functions(servers: None, tmp_path: Path) -> None:
    """The same rows have the same outcomes where functions are not allowed, also after the server lost its scripts."""
    three = policy("a", limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 3, MINUTE)])
    with LimitedValkey(tmp_path, "~* +@all -fcall -function -script") as server:
        nodes = SingleNode(server.pod_url)
        script = decide_script()
        assert script.without_functions().version == script.version
        async with Pod(nodes, fresh_keys(), script=script.without_functions()) as pod:
            asks = [Ask(request("acme", f"r{i}"), three) for i in range(5)]
            assert [type(o) for o in await pod.decide(*asks)] == [Admitted] * 3 + [LimitHit] * 2
            with Redis.from_url(server.url) as client:
                client.script_flush()
            assert [type(o) for o in await pod.decide(*asks)] == [Replay] * 3 + [LimitHit] * 2
        await nodes.close()
