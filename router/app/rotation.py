"""Rotation of secrets: mounted passwords, tokens, credentials and TLS files are read again when they change.

    a file changes ─▶ settings are read again ─▶ the part makes new connections, one at a time ─▶ the old ones end
                        │ invalid                 │ the server refuses them, or is unavailable
                        └──────── tried again at the next check; what works stays in use ─┘

A mistake in the files of one part does not stop the others.

**Why new before old.** A part closes its old connection only after the server has accepted the new one. So a wrong
password, or a file that is half written, never interrupts service, and no request is lost.

The order of rotation does not matter: a new password may be in the file before the server knows it, or later. Files are
compared by content, so the symlink swap of a Kubernetes mount is noticed. The key of hashed audit names is an
exception: it is read at the start only.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from pathlib import Path

from router.errors import BusError, InvalidInput, Problem, StoreError
from router.log_throttle import LogThrottle
from router.logs import hide
from router.settings import PREFIX, Settings, mounted_files, read
from router.telemetry import Event, Telemetry

log = logging.getLogger("router.rotation")

Apply = Callable[[Settings], Awaitable[None]]
PARTS = {"nats": ("nats_",), "redis": ("redis_",), "admin": ("admin_", "operator_", "viewer_")}
"""The parts of a pod that use secrets, with the prefix of their settings."""


class Rotation:
    """Watches the files of each part. `parts`: how a part takes new settings; `secrets`: all secrets of settings."""

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        parts: Mapping[str, Apply],
        secrets: Callable[[Settings], tuple[str, ...]],
        *,
        files: Mapping[str, Path] | None = None,
        read: Callable[[], tuple[Settings, list[Problem]]] = read,
    ) -> None:
        self._counts = telemetry.rotations
        self._parts = parts
        self._secrets = secrets
        self._read = read
        self._throttles = {part: LogThrottle(time.monotonic) for part in parts}
        found = mounted_files(settings) if files is None else files
        self._files = {
            part: {field: path for field, path in found.items() if field.startswith(PARTS[part])} for part in parts
        }
        self._used = {part: _digest(files) for part, files in self._files.items()}

    @property
    def watches(self) -> bool:
        """Whether any secret comes from a file."""
        return any(self._files.values())

    async def run(self, every_s: float) -> None:
        """Check the files forever; cancel to stop."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Read the files once, and let the parts use what has changed. Never raises for bad files or servers."""
        digests = await asyncio.to_thread(lambda: {part: _digest(files) for part, files in self._files.items()})
        changed = [part for part, digest in digests.items() if digest is not None and digest != self._used[part]]
        if not changed:
            return
        settings, problems = await asyncio.to_thread(self._read)
        hide(self._secrets(settings))
        for part in changed:
            try:
                if own := [p for p in problems if p.path.removeprefix(PREFIX).lower().startswith(PARTS[part])]:
                    raise InvalidInput(own)
                await self._parts[part](settings)
            except (InvalidInput, StoreError, BusError) as fault:
                self._counts.labels(part, "refused").inc()
                self._failed(part, why=str(fault))
            else:
                self._used[part] = digests[part]
                self._counts.labels(part, "done").inc()
                self._throttles[part].over()
                log.info("changed secrets are in use: %s", part, extra={"event": Event.SECRETS_ROTATED, "part": part})

    def _failed(self, part: str, *, why: str) -> None:
        if (suppressed := self._throttles[part].due(why)) is not None:
            fields = {"event": Event.SECRETS_REFUSED, "part": part, "unsaid": suppressed}
            log.error("changed secrets of %s cannot be used, the old ones stay: %s", part, why, extra=fields)


def _digest(files: Mapping[str, Path]) -> bytes | None:
    """A digest of the contents; None: a file cannot be read now, as during a swap."""
    digest = blake2b(digest_size=32)
    for field, path in sorted(files.items()):
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest.update(b"%b %d " % (field.encode(), len(content)))
        digest.update(content)
    return digest.digest()
