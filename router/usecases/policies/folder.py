"""Read a mounted folder of policies: `<tenant>/<policy_id>.json` or `<tenant>__<policy_id>.json`.

The flat form is for ConfigMaps, which cannot hold folders. Hidden entries (a ConfigMap's `..data`) and files other than
*.json are ignored.
"""

from pathlib import Path
from typing import Final

from msgspec import Struct

from router.errors import InvalidInput, Problem
from router.ports.seeding import BadFile
from router.usecases.policies.publish import check_ids
from router.wire.policies import MAX_DOCUMENT_BYTES

SEPARATOR: Final = "__"


class PolicyFile(Struct, frozen=True, kw_only=True):
    """One file. `name` is its path in the folder."""

    name: str
    tenant_id: str
    policy_id: str
    data: bytes


class FolderContents(Struct, frozen=True):
    """The files of a folder and the unusable ones, in the order of their names."""

    files: tuple[PolicyFile, ...] = ()
    bad: tuple[BadFile, ...] = ()


def read_folder(folder: Path) -> FolderContents:
    """Read all policy files of a folder. Blocks; call it from a thread.

    An unusable file is reported in `bad` and does not stop the others; an unreadable folder is reported there too.
    """
    files: list[PolicyFile] = []
    bad: list[BadFile] = []
    names: dict[tuple[str, str], str] = {}
    try:
        paths = _json_files(folder)
    except OSError as fault:
        return FolderContents((), (BadFile(".", (_unreadable(fault),)),))
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            tenant_id, policy_id = _ids(path.relative_to(folder))
            first = names.setdefault((tenant_id, policy_id), name)
            if first != name:
                raise InvalidInput([Problem("", message=f"is the same policy as {first}", hint="remove one of them")])
            files.append(PolicyFile(name=name, tenant_id=tenant_id, policy_id=policy_id, data=_read(path)))
        except InvalidInput as refused:
            bad.append(BadFile(name, tuple(refused.problems)))
        except OSError as fault:
            bad.append(BadFile(name, (_unreadable(fault),)))
    return FolderContents(tuple(files), tuple(bad))


def _unreadable(fault: OSError) -> Problem:
    return Problem("", message=f"cannot be read: {fault.strerror or fault}")


def _json_files(folder: Path) -> list[Path]:
    json_files: list[Path] = []
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            json_files.extend(p for p in entry.iterdir() if p.suffix == ".json" and not p.name.startswith("."))
        elif entry.suffix == ".json":
            json_files.append(entry)
    return sorted(json_files)


def _ids(path: Path) -> tuple[str, str]:
    if len(path.parts) > 1:
        tenant_id, policy_id = path.parts[0], path.stem
    else:
        tenant_id, _, policy_id = path.stem.partition(SEPARATOR)
        if not tenant_id or not policy_id or SEPARATOR in policy_id:
            hint = f"<tenant>/<policy_id>.json, or <tenant>{SEPARATOR}<policy_id>.json with one {SEPARATOR}"
            raise InvalidInput([Problem("", message="the file name holds no tenant and policy id", hint=hint)])
    check_ids(tenant_id, policy_id=policy_id)
    return tenant_id, policy_id


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        # One byte more than allowed, so that the parser refuses a larger file with its own message.
        return file.read(MAX_DOCUMENT_BYTES + 1)
