"""`router idempotency`: forget stored answers."""

from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.shared.exits import Exit
from router.cli.shared.names import TenantOption
from router.cli.shared.output import note, print_json
from router.cli.shared.overriding import WhyOption, override
from router.cli.shared.target import JsonOption, RedisOption

if TYPE_CHECKING:
    pass

app = typer.Typer(help="Forget stored answers.", no_args_is_help=True)


@app.command()
def forget(
    tenant: TenantOption,
    request_id: Annotated[
        str | None, typer.Option(help="The request_id, if the request had no idempotency key.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="The idempotency_key.")] = None,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Forget the answer to one request; its repeat is a new request. Exit code 1: no answer is stored."""
    forgotten = override(lambda o: o.forget(tenant, request_id=request_id, idempotency_key=key, why=why), redis)
    called = request_id or key
    if json:
        print_json({"tenant_id": tenant, "forgotten": forgotten, "request_id": request_id, "idempotency_key": key})
    elif forgotten:
        typer.echo(f"the answer to {called} is forgotten; charges and running tasks stay")
    else:
        note(f"no answer to {called} is stored for {tenant}")
    raise typer.Exit(Exit.OK if forgotten else Exit.NEGATIVE)
