"""Changes of the file of API keys: whole or not at all, readable by its owner only."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.domain.api_key import ApiKey, Asker
from router.errors import InvalidInput, Problem
from router.wire.api_keys import decode_keys, digest_of, encode_keys

_SECRET_BYTES = 32
_ID_BYTES = 6


def new_key(asker: Asker) -> tuple[ApiKey, str]:
    """Make a key; return it for the file, and its text for the holder, which is kept nowhere."""
    own_id = secrets.token_hex(_ID_BYTES)
    text = f"rk_{own_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return ApiKey(own_id, digest_of(text), asker), text


class KeyFile:
    """The file of API keys. Several commands at once change it one after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> list[ApiKey]:
        """Return the keys; none if there is no file.

        :raises InvalidInput: the file cannot be read, with every reason.
        """
        try:
            return decode_keys(self._path.read_bytes())
        except FileNotFoundError:
            return []
        except OSError as fault:
            raise InvalidInput([self._unusable(fault)]) from fault

    def add(self, key: ApiKey) -> None:
        """Add a key.

        :raises InvalidInput: the file cannot be read or written.
        """
        with self._alone():
            self._write([*self.entries(), key])

    def remove(self, own_id: str) -> ApiKey | None:
        """Remove a key and return it; None: there is no such key.

        :raises InvalidInput: the file cannot be read or written.
        """
        with self._alone():
            keys = self.entries()
            removed = next((key for key in keys if key.id == own_id), None)
            if removed is not None:
                self._write([key for key in keys if key is not removed])
            return removed

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the folder: the file itself is replaced."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as fault:
            raise InvalidInput([self._unusable(fault)]) from fault
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _write(self, keys: list[ApiKey]) -> None:
        unfinished = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(encode_keys(keys))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._path)
        except OSError as fault:
            unfinished.unlink(missing_ok=True)
            raise InvalidInput([self._unusable(fault)]) from fault

    def _unusable(self, fault: OSError) -> Problem:
        return Problem(
            str(self._path), message=f"cannot be used: {fault.strerror or fault}", hint="name another file with --file"
        )
