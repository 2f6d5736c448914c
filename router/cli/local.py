"""`router local`."""

from pathlib import Path
from typing import Annotated

import typer


def local(
    once: Annotated[
        bool, typer.Option("--once", help="End after the proof; the exit code is 0 only if every step happened.")
    ] = False,
    data_dir: Annotated[Path, typer.Option(help="Folder for data and logs; kept over restarts.")] = Path(".local"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port of the first pod, if it is free.")] = 8080,
    api_port: Annotated[int, typer.Option(min=1, max=65535, help="API port of the first pod, if it is free.")] = 8180,
    pods: Annotated[int, typer.Option(min=2, max=16, help="Router pods, each a process.")] = 2,
) -> None:
    """Start a small fleet on real servers here, prove it works, and serve until Ctrl-C.

    Valkey, NATS, two pods, a worker and policies for three example tenants. A pod or worker that dies is started again
    (at most five times a minute). After the proof, one line READY {json} names every address.
    """
    import asyncio

    from router.local.fleet import Options
    from router.local.run import run_local
    from router.local.terminal import own_terminal

    with own_terminal():
        code = asyncio.run(run_local(Options(data_dir, http_port=port, api_port=api_port, pods=pods), once=once))
    raise typer.Exit(code)
