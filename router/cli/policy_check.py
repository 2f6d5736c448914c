"""`router policy check` and `router policy schema`; they need no server."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.shared.exits import Exit
from router.cli.shared.output import print_json
from router.cli.shared.target import JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.errors import Problem


def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Policy documents, and folders as ROUTER_POLICY_DIR takes them; - reads standard input.",
        ),
    ],
    strict: Annotated[bool, typer.Option("--strict", help="A warning counts as a mistake.")] = False,
    json: JsonOption = False,
) -> None:
    """Name every mistake in policy documents; needs no server. Exit code 1: there is one."""
    report = [
        entry for file in files for entry in (_folder(file) if file.is_dir() else [_document(str(file), read(file))])
    ]
    if json:
        print_json(report)
    else:
        for checked in report:
            _print(checked)
    kinds = ("errors", "warnings") if strict else ("errors",)
    raise typer.Exit(Exit.NEGATIVE if any(checked[kind] for checked in report for kind in kinds) else Exit.OK)


def schema() -> None:
    """Print the JSON Schema of policies (draft 2020-12), for editors and CI."""
    from router.wire.policies import schema_file

    typer.echo(schema_file(), nl=False)


def read(file: Path) -> bytes:
    """The bytes of a document; - is standard input.

    :raises typer.BadParameter: it cannot be read.
    """
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as e:
        raise typer.BadParameter(f"{file} cannot be read: {e.strerror}", param_hint="FILE") from e


def read_good(file: Path) -> bytes:
    """The bytes of a valid document; an invalid one is refused before any server is contacted.

    :raises InvalidInput: with every mistake.
    :raises typer.BadParameter: it cannot be read.
    """
    from router.wire.policies import decode

    data = read(file)
    decode(data)
    return data


def _document(name: str, data: bytes) -> dict[str, Any]:
    from router.errors import InvalidInput
    from router.wire.policies import decode

    try:
        return _entry(name, warnings=decode(data).warnings)
    except InvalidInput as refused:
        return _entry(name, errors=refused.problems)


def _folder(folder: Path) -> list[dict[str, Any]]:
    from router.errors import Problem
    from router.usecases.policies.folder import read_folder

    found = read_folder(folder)
    entries = [_document(str(folder / f.name), f.data) for f in found.files]
    entries += [_entry(str(folder / bad.name), errors=bad.problems) for bad in found.bad]
    return entries or [
        _entry(str(folder), errors=[Problem("", message="holds no policy", hint="<tenant>/<policy_id>.json")])
    ]


def _entry(name: str, *, errors: "Sequence[Problem]" = (), warnings: "Sequence[Problem]" = ()) -> dict[str, Any]:
    return {"file": name, "errors": [*map(str, errors)], "warnings": [*map(str, warnings)]}


def _print(report: dict[str, Any]) -> None:
    for kind in ("errors", "warnings"):
        for line in report[kind]:
            typer.echo(f"{report['file']}: {kind[:-1]}: {line}")
    if not report["errors"]:
        typer.echo(f"{report['file']}: ok")
