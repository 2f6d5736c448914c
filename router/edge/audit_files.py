"""Audit entries in files: JSON lines, and a manifest beside each file to verify it.

    <folder>/tenant=<tenant>/<first id>_<last id>.jsonl
    <folder>/tenant=<tenant>/<first id>_<last id>.manifest.json   sha256, bytes, count, first and last id, span

A file gets its final name when it is complete, and its manifest after that. A file without a manifest is unfinished.
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

from router.domain.audit.records import AuditEntry
from router.errors import ExportFailed
from router.wire.audit import audit_line, rfc3339_us

_MAX_NAME = 200


class Manifest(Struct, frozen=True):
    """Contents of a file. Ids are entry ids of the tenant's log; `first` and `last` are times."""

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
    """The folder of a tenant's files, always inside `folder`. Long tenant names are shortened for the file system."""
    if len(tenant_id) > _MAX_NAME:
        tenant_id = f"{tenant_id[:_MAX_NAME]}~{blake2b(tenant_id.encode(), digest_size=8).hexdigest()}"
    return folder / f"tenant={tenant_id}"


class AuditFile:
    """A file being written: `add`, then `finish`. Leaving the context without `finish` removes it.

    :raises OSError: the file could not be created or written.
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
        """Append entries, in the log's order."""
        if not entries:
            return
        text = b"".join(audit_line(e) + b"\n" for e in entries)
        self._file.write(text)
        self._hash.update(text)
        self._size += len(text)
        self._count += len(entries)
        self._first, self._last = self._first or entries[0], entries[-1]

    def finish(self) -> Manifest | None:
        """Sync the file, give it its name, then write the manifest. None: no entries were added, so no file is left."""
        first, last = self._first, self._last
        if first is None or last is None:
            return None
        name = f"{first.id}_{last.id}"
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._unfinished.replace(self._folder / f"{name}.jsonl")
        manifest = Manifest(
            tenant_id=self._tenant_id,
            file=f"{name}.jsonl",
            sha256=self._hash.hexdigest(),
            bytes=self._size,
            count=self._count,
            first_id=first.id,
            last_id=last.id,
            first=rfc3339_us(first.ts_us),
            last=rfc3339_us(last.ts_us),
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
    """Make the names of new files durable too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileSink:
    """Implements `ports.audit.Sink`: a file and its manifest for every run of the export."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def store(self, tenant_id: str, entries: Sequence[AuditEntry]) -> None:
        """See `ports.audit.Sink.store`."""
        try:
            await asyncio.to_thread(self._write, tenant_id, entries)
        except OSError as fault:
            raise ExportFailed(f"{self._folder}: {fault.strerror or fault}") from fault

    def _write(self, tenant_id: str, entries: Sequence[AuditEntry]) -> None:
        with AuditFile(self._folder, tenant_id) as file:
            file.add(entries)
            file.finish()
