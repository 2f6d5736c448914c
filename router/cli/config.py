"""`router config` and `router version`."""

from typing import Annotated

import typer

from router.cli.shared.output import note, print_json, print_table
from router.cli.shared.target import JsonOption


def config(
    json: JsonOption = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only settings that differ from the default.")] = False,
) -> None:
    """Show the settings that a pod would have when started here; secrets are hidden."""
    from router.settings import effective, load

    rows = [r for r in effective(load()) if r.changed or not changed]
    if json:
        print_json({r.variable: r.value for r in rows})
        return
    if not rows:
        note("all settings have their defaults")
        return
    print_table(
        ("setting", "value", "default", "what it does"), ((r.variable, r.value, r.default, r.description) for r in rows)
    )


def version(json: JsonOption = False) -> None:
    """Show the version."""
    from router import __version__

    if json:
        print_json({"version": __version__})
    else:
        typer.echo(__version__)
