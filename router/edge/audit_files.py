"""Audit entries in files: JSON lines, and beside each file a manifest that vouches for it.

    <folder>/tenant=<tenant>/<first id>_<last id>.jsonl
    <folder>/tenant=<tenant>/<first id>_<last id>.manifest.json   sha256, bytes, count, first and last id, span

A file appears whole, under its final name, and its manifest after it: a file without one was not finished.
"""

import asyncio
import os
from collections.abc import Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
from msgspec import Struct

from router.domain.audit import AuditEntry
from router.errors import ExportFailed
from router.wire.audit import audit_line, moment

_MAX_NAME = 200


class Manifest(Struct, frozen=True):
    """What a file holds. Ids are places in the tenant's log."""

    tenant_id: str
    file: str
    sha256: str
    bytes: int
    count: int
    first_id: str
    last_id: str
    first: str
    last: str


def folder_of(folder: Path, tenant_id: str) -> Path:
    """Where a tenant's files go. No tenant's name leads out of the folder, or is too long for a file system."""
    if len(tenant_id) > _MAX_NAME:
        tenant_id = f"{tenant_id[:_MAX_NAME]}~{blake2b(tenant_id.encode(), digest_size=8).hexdigest()}"
    return folder / f"tenant={tenant_id}"


class AuditFile:
    """One file in the making: `add`, then `finish`. Left without `finish`, nothing of it stays.

    :raises OSError: the file system says no.
    """

    def __init__(self, folder: Path, tenant_id: str) -> None:
        self._tenant_id = tenant_id
        self._folder = folder_of(folder, tenant_id)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._unfinished = self._folder / f".{os.getpid()}-{os.urandom(4).hex()}.unfinished"
        self._file = self._unfinished.open("wb")
        self._hash = sha256()
        self._size = self._count = 0
        self._first: AuditEntry | None = None
        self._last: AuditEntry | None = None

    def add(self, entries: Sequence[AuditEntry]) -> None:
        """Write entries, in the log's order."""
        if not entries:
            return
        text = b"".join(audit_line(e) + b"\n" for e in entries)
        self._file.write(text)
        self._hash.update(text)
        self._size += len(text)
        self._count += len(entries)
        self._first, self._last = self._first or entries[0], entries[-1]

    def finish(self) -> Manifest | None:
        """Make it durable under its name, manifest last; None: nothing was added, and there is no file."""
        first, last = self._first, self._last
        if first is None or last is None:
            return None
        name = f"{first.id}_{last.id}"
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._unfinished.replace(self._folder / f"{name}.jsonl")
        manifest = Manifest(
            self._tenant_id,
            f"{name}.jsonl",
            self._hash.hexdigest(),
            self._size,
            self._count,
            first.id,
            last.id,
            moment(first.ts_us),
            moment(last.ts_us),
        )
        with self._unfinished.open("wb") as out:
            out.write(orjson.dumps({f: getattr(manifest, f) for f in manifest.__struct_fields__}) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        self._unfinished.replace(self._folder / f"{name}.manifest.json")
        _sync_folder(self._folder)
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()
        self._unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """The names of new files are safe, too."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class FileSink:
    """`usecases.audit.export.Sink`: a file and its manifest for every run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def store(self, tenant_id: str, entries: Sequence[AuditEntry]) -> None:
        """See `Sink.store`."""
        try:
            await asyncio.to_thread(self._write, tenant_id, entries)
        except OSError as fault:
            raise ExportFailed(f"{self._folder}: {fault.strerror or fault}") from fault

    def _write(self, tenant_id: str, entries: Sequence[AuditEntry]) -> None:
        with AuditFile(self._folder, tenant_id) as file:
            file.add(entries)
            file.finish()
