"""`router key`: create, list and revoke the keys of the HTTP API."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.shared.exits import Exit
from router.cli.shared.names import tenant_in_subjects
from router.cli.shared.output import note, print_facts, print_json, print_line, print_table
from router.cli.shared.target import JsonOption
from router.domain.api_key import ApiRole
from router.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from router.domain.api_key import ApiKey
    from router.edge.api.key_file import KeyFile

app = typer.Typer(help="Create, list and revoke keys of the HTTP API.", no_args_is_help=True)

FileOption = Annotated[
    Path | None, typer.Option("--file", help="The key file; else ROUTER_API_KEYS_FILE.", dir_okay=False)
]


def _tenants(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        tenant_in_subjects(name)
    return names


def _principal(name: str) -> str:
    from router.wire.api_keys import is_principal

    if not is_principal(name):
        raise typer.BadParameter("give 1 to 128 printable characters")
    return name


TenantsOption = Annotated[list[str] | None, typer.Option(help="A tenant of the key, repeatable.", callback=_tenants)]


@app.command()
def create(
    principal: Annotated[str, typer.Argument(help="Who gets the key: a name for logs.", callback=_principal)],
    role: Annotated[ApiRole, typer.Option(help="What the key may do.")] = ApiRole.CALLER,
    tenant: TenantsOption = None,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="The key is for every tenant.")] = False,
    json: JsonOption = False,
    file: FileOption = None,
) -> None:
    """Create a key and print it, once: the file has only its hash. Pods use it within ROUTER_SECRETS_POLL."""
    from router.domain.api_key import Asker
    from router.edge.api.key_file import new_key

    if bool(tenant) is all_tenants:
        raise typer.BadParameter("name tenants with --tenant, or say --all-tenants", param_hint="--tenant")
    key, text = new_key(Asker(principal, role, None if all_tenants else frozenset(tenant or ())))
    _file(file).add(key)
    if json:
        print_json({**_facts(key), "key": text})
        return
    note(f"key {key.id} of {principal}, role {role.value}: keep it now, it is not shown again")
    print_line(text)


@app.command("list")
def list_keys(json: JsonOption = False, file: FileOption = None) -> None:
    """List the keys, without their secrets."""
    keys = _file(file).entries()
    if json:
        print_json([_facts(key) for key in keys])
    elif keys:
        rows = [tuple(_cell(value) for value in _facts(key).values()) for key in keys]
        print_table(("id", "principal", "role", "tenants"), rows)
    else:
        note("there are no keys yet")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id of the key, as `router key list` shows it.")],
    json: JsonOption = False,
    file: FileOption = None,
) -> None:
    """Remove a key. Pods refuse it within ROUTER_SECRETS_POLL. Exit code 1: there is no such key."""
    removed = _file(file).remove(key_id)
    if removed is None:
        note(f"there is no key {key_id}: `router key list` shows the ids")
        raise typer.Exit(Exit.NEGATIVE)
    if json:
        print_json(_facts(removed))
    else:
        print_facts((name, _cell(value)) for name, value in {"revoked": removed.id, **_facts(removed)}.items())


def _file(option: Path | None) -> "KeyFile":
    from router.edge.api.key_file import KeyFile
    from router.settings import load

    path = option or load().api_keys_file
    if path is None:
        hint = "name the file with --file, or set ROUTER_API_KEYS_FILE"
        raise InvalidInput([Problem("--file", message="no key file is named", hint=hint)])
    return KeyFile(path)


def _facts(key: "ApiKey") -> dict[str, Any]:
    from router.wire.api_keys import tenants_of

    asker = key.asker
    return {
        "id": key.id,
        "principal": asker.principal,
        "role": asker.role.value,
        "tenants": tenants_of(asker),
    }


def _cell(value: Any) -> object:
    return ", ".join(value) if isinstance(value, list) else value
