"""The fleet that a command uses: an option, else the environment, else .local/ready.json.

A running `router local` leaves `ready.json` in its data folder; a command in the folder above it finds the fleet there.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from router.bus.client.options import BusOptions
    from router.settings import Settings

READY = Path(".local/ready.json")

NatsOption = Annotated[
    str | None,
    typer.Option("--nats", metavar="URL", help="NATS server; else ROUTER_NATS_URL, else .local/ready.json."),
]
RedisOption = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", help="Redis; else ROUTER_REDIS_URL, else .local/ready.json."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]


def settings_for(*, nats: str | None = None, redis: str | None = None) -> "Settings":
    """The settings of this process, with the addresses of the chosen fleet.

    :raises InvalidInput: the environment, an option, or ready.json is wrong.
    """
    from router.settings import load

    local = local_facts()
    environ = dict(os.environ)
    for variable, option, key in (("ROUTER_NATS_URL", nats, "nats"), ("ROUTER_REDIS_URL", redis, "redis")):
        if option is not None:
            environ[variable] = option
        elif not environ.get(variable) and key in local:
            environ[variable] = str(local[key])
    return load(environ)


def bus_options(settings: "Settings", name: str) -> "BusOptions":
    """How to connect to NATS; `name` is shown by the server."""
    from msgspec.structs import replace

    from router.app.adapter_settings import bus_options as of_a_pod

    return replace(of_a_pod(settings), name=name)


def local_facts() -> dict[str, Any]:
    """The facts in the local fleet's ready.json; empty when there is no local fleet.

    :raises InvalidInput: ready.json is wrong.
    """
    import orjson

    try:
        facts = orjson.loads(READY.read_bytes())
        return {"nats": str(facts["nats"]), "redis": str(facts["redis"]), "pods": list(facts.get("pods", ()))}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as e:
        hint = "remove it, and start `router local` again"
        raise InvalidInput([Problem(str(READY), message=f"is not what `router local` writes: {e}", hint=hint)]) from e
