"""The peers' packages, in an environment of their own: `.tools/peers`, from `requirements.txt` beside this file."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

WANTED = Path(__file__).with_name("requirements.txt")
FOLDER = Path(__file__).parents[2] / ".tools" / "peers"
_TIMEOUT_S = 1_500
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$", re.MULTILINE)


class NotInstalled(Exception):
    """The peers cannot be installed here; the message says why."""


class Peers(Struct, frozen=True):
    """The installed environment."""

    folder: Path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.program("python"))

    def program(self, name: str) -> Path:
        """One of its programs."""
        return self.folder / "bin" / name


def version(package: str) -> str:
    """The pinned version of a package."""
    pins: list[tuple[str, str]] = _PIN.findall(WANTED.read_text())
    return dict(pins)[package]


def install(folder: Path = FOLDER) -> Peers:
    """The environment, installed if it is not there or if the file of versions has changed.

    :raises NotInstalled: pip failed, for example without a network.
    """
    stamp, digest = folder / "installed", hashlib.sha256(WANTED.read_bytes()).hexdigest()
    peers = Peers(folder)
    if stamp.exists() and stamp.read_text() == digest:
        return peers
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(exist_ok=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _run(peers.python, "-m", "pip", "install", "-q", "--no-deps", "-r", str(WANTED))
    stamp.write_text(digest)
    return peers


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise NotInstalled(f"pip took longer than {_TIMEOUT_S} s") from late
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise NotInstalled(said[-1][:200] if said else f"{command[0]} ended with {done.returncode}")
