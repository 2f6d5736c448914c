"""The fleet's folder: its lock, and its small files beside data and logs."""

import fcntl
import os
import time
from pathlib import Path
from typing import IO

import orjson

from router.domain.api_key import ApiRole, Asker
from router.edge.api.key_file import KeyFile, new_key
from router.local.processes import LocalError
from router.wire.api_keys import digest_of

READY = "ready.json"
CP_STATE = "cp_state.json"
ADMIN_TOKEN = "admin_token"  # noqa: S105 - a file's name
API_KEYS, API_KEY = "api_keys.json", "api_key"


class Folder:
    """The lock of a folder: one fleet at a time owns it. The lock ends with the process, however the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: IO[str] | None = None

    def claim(self) -> None:
        """Lock the folder; create it if needed.

        :raises LocalError: another fleet has it, or it cannot be written.
        """
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            # Append mode: the pid in it is the holder's until the lock is ours.
            lock = (self._path / "lock").open("a+")
        except OSError as e:
            raise LocalError(f"{self._path} cannot be used ({e.strerror}): name another one with --data-dir") from e
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            lock.seek(0)
            holder = lock.read().strip() or "?"
            lock.close()
            raise LocalError(
                f"another fleet (pid {holder}) runs in {self._path}: stop it, or name another folder with --data-dir"
            ) from e
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        # A killed fleet leaves this file behind; until the next READY it would name servers that are gone.
        (self._path / READY).unlink(missing_ok=True)

    def release(self) -> None:
        """Release the folder; does nothing if it was never locked."""
        if self._lock is not None:
            (self._path / READY).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def write_state(self, admin_token: str) -> None:
        """The CP state file that opens all features, and the token; only this user can read the latter."""
        state = {
            "project": "router-local",
            "version": "1",
            "current_cp": "CP2-LC",
            "no_drift": True,
            "agents": [],
            "artifact_checksums": [],
            "updated_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        (self._path / CP_STATE).write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2))
        self._write_private(ADMIN_TOKEN, admin_token.encode())

    def api_key(self) -> str:
        """Return a key of the HTTP API for every tenant. It is made at the first start, and kept with its file."""
        file = KeyFile(self._path / API_KEYS)
        try:
            text = (self._path / API_KEY).read_text()
            if digest_of(text) in {key.digest for key in file.entries()}:
                return text
        except FileNotFoundError:
            pass
        key, text = new_key(Asker("local", ApiRole.ADMIN))
        file.add(key)
        self._write_private(API_KEY, text.encode())
        return text

    def write_ready(self, facts: dict[str, object]) -> None:
        """Write the addresses of the fleet for the command line. The file holds the token, so only this user can read
        it.
        """
        self._write_private(READY, orjson.dumps(facts))

    def _write_private(self, name: str, content: bytes) -> None:
        path = self._path / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
