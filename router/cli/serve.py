"""`router serve`."""

import typer


def serve() -> None:
    """Run one router pod with the settings of the environment (see `router config`) until SIGTERM."""
    import asyncio

    from router.app.pod import serve as run_pod
    from router.settings import load

    raise typer.Exit(asyncio.run(run_pod(load())))
