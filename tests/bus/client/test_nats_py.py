"""The guard over what the fast path relies on in nats-py."""

import ast
import asyncio
import inspect
from types import ModuleType
from typing import Any

import pytest
from nats.aio import client as client_module
from nats.aio import subscription, transport
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol import parser

from router import nats_tls
from router.bus.client import fast, incoming, nats_py
from router.bus.client import parser as own_parser
from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from router.errors import StartupRefused
from tests.servers import free_port


def names(source: str) -> set[str]:
    """Every attribute that a module reads, sets, defines or names in a `getattr`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
                found.add(name)
    return {name for name in found if not name.startswith("__")}


NAMES_OF_NATS_PY = set[str]().union(
    *(names(inspect.getsource(m)) for m in (client_module, parser, subscription, transport))
)


def created() -> set[str]:
    """The attributes that the guarded `__init__` functions create."""
    client = Client()
    socket = TcpTransport()  # type: ignore[no-untyped-call]  # nats-py's
    return {*vars(client), *vars(client._ps), *vars(socket), *vars(subscription.Subscription(client))}


def unguarded(source: str) -> set[str]:
    """What a module uses of nats-py without a guard: private names, and the public names of the client and parser."""
    used = names(source)
    private = {name for name in used if name.startswith("_")} & NAMES_OF_NATS_PY
    found = private - created() - {name for functions in nats_py.DIGESTS.values() for name in functions}
    for owner in (Client, parser.Parser):
        found |= (used & {*vars(owner)}) - {*nats_py.DIGESTS[owner]}
    return found


@pytest.mark.parametrize("owner", nats_py.DIGESTS, ids=lambda owner: owner.__name__)
def test_the_installed_nats_py_reads_as_it_did(owner: type) -> None:
    """When this fails: read the new source beside `router/bus/client/fast.py`, then write down the new digest."""
    installed = {name: nats_py.digest(owner, name) for name in nats_py.DIGESTS[owner]}
    assert installed == nats_py.DIGESTS[owner], f"nats-py {client_module.__version__} reads differently"


def test_the_digests_are_of_the_installed_version() -> None:
    """The number of a new nats-py is written down with its digests: at run time it stands for them."""
    assert client_module.__version__ == nats_py.KNOWN_VERSION


@pytest.mark.parametrize("module", [fast, incoming, own_parser, nats_tls], ids=lambda module: module.__name__)
def test_no_name_of_nats_py_is_used_without_a_guard(module: ModuleType) -> None:
    """Each function is listed with a digest, and each attribute is created in a listed `__init__`."""
    assert unguarded(inspect.getsource(module)) == set()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("self._send_publish(x)", "_send_publish"),
        ("super().drain()", "drain"),
        ("getattr(self._transport, '_ws')", "_ws"),
        ("def _process_headers(self): ...", "_process_headers"),
        ("def force_reconnect(self): ...", "force_reconnect"),
    ],
)
def test_a_use_without_a_guard_is_found(line: str, name: str) -> None:
    """Calls, attributes, names in `getattr` and overrides of nats-py's are seen."""
    assert unguarded(line) == {name}


async def test_a_version_whose_functions_read_the_same_is_accepted() -> None:
    """A patch release of nats-py that leaves the listed functions alone needs no release of ours."""
    nats_py.check("2.16.99")


async def test_a_version_that_lacks_or_changes_a_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error names the version, the functions and the remedy."""

    async def process_ping(self: Any) -> None:
        raise AssertionError(self)

    monkeypatch.setattr(Client, "_process_ping", process_ping)
    monkeypatch.delattr(Client, "_remove_sub")
    remedy = "nats-py==" + nats_py.KNOWN_VERSION
    with pytest.raises(StartupRefused, match=f"2.17.0 .*: Client._remove_sub, Client._process_ping differ .*{remedy}"):
        nats_py.check("2.17.0")


async def test_a_python_whose_streams_differ_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stream holds at the login could not be counted, and messages would change their order."""
    monkeypatch.setattr(asyncio, "StreamReader", object)
    with pytest.raises(StartupRefused, match="StreamReader has no _buffer"):
        nats_py.check()


async def test_a_bus_does_not_start_on_a_client_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal comes before the first connection, so no pod serves on an unproven client."""
    bus = Bus(BusOptions((f"nats://127.0.0.1:{free_port()}",)))

    def refuse() -> None:
        raise StartupRefused("x")

    monkeypatch.setattr(nats_py, "check", refuse)
    with pytest.raises(StartupRefused):
        await bus.start()
