"""Files of exported audit entries: whole or not there, vouched for, and never missing one, whoever dies in between."""

import asyncio
import hashlib
import sys
from pathlib import Path

import orjson
import pytest

from router.edge.audit_files import FileSink, folder_of
from router.errors import ExportFailed
from tests.edge.audit_entries import entries


def held(folder: Path) -> list[str]:
    """The ids of every file that has a manifest, in order, each file held against it."""
    found: list[str] = []
    for path in sorted((folder / "tenant=acme").glob("*.manifest.json")):
        said = orjson.loads(path.read_bytes())
        data = path.with_name(said["file"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (said["sha256"], said["bytes"])
        ids = [orjson.loads(line)["id"] for line in data.splitlines()]
        assert (ids[0], ids[-1], len(ids)) == (said["first_id"], said["last_id"], said["count"])
        found += ids
    return found


DYING = """
import os, sys
from pathlib import Path
from router.edge.audit_files import AuditFile
from tests.edge.audit_entries import entries

left = int(sys.argv[2])

def step(real):
    def stepped(*args):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return real(*args)
    return stepped

os.fsync, Path.replace = step(os.fsync), step(Path.replace)
with AuditFile(Path(sys.argv[1]), "acme") as file:
    file.add(entries(100, 5))
    file.finish()
"""


@pytest.mark.parametrize("dies_at", range(1, 5))
async def test_a_pod_that_dies_leaves_no_half_a_file(tmp_path: Path, dies_at: int) -> None:
    """At each step onto the disk: nothing half has a manifest, and the next run, by any pod, has every entry."""
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, str(tmp_path), str(dies_at))
    assert await asyncio.wait_for(dying.wait(), 20) == 9
    assert held(tmp_path) == []
    await FileSink(tmp_path).store("acme", entries(100, 8))
    assert held(tmp_path) == [e.id for e in entries(100, 8)]


async def test_copies_of_two_pods_are_one_file(tmp_path: Path) -> None:
    """The name says which entries it has, so the same run twice is the same file."""
    for _ in range(2):
        await FileSink(tmp_path).store("acme", entries(100, 5))
    assert held(tmp_path) == [e.id for e in entries(100, 5)]
    assert len(list((tmp_path / "tenant=acme").iterdir())) == 2


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The export is told and tries again; the mark stays where it is."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportFailed, match="Not a directory"):
        await FileSink(tmp_path / "file").store("acme", entries(1, 1))


@pytest.mark.parametrize("name", ["..", ".", "a" * 255, "...acme"])
def test_no_tenant_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """Whatever a name may be."""
    folder = folder_of(tmp_path, name)
    assert folder.resolve().parent == tmp_path.resolve()
    folder.mkdir()
