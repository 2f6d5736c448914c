"""`router worker`."""

from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.target import NatsOption

if TYPE_CHECKING:
    from router.worker.worker import Options


def worker(
    nats: NatsOption = None,
    name: Annotated[str, typer.Option(help="How the worker calls itself.")] = "example-worker",
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Tasks at the same time.")] = 32,
    drain_s: Annotated[float, typer.Option(min=0, help="After SIGTERM: seconds for what runs to finish.")] = 20.0,
    alias: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE=KNOWN", help="A further task type, run as a known one. Repeatable."),
    ] = None,
) -> None:
    """Run the example worker until SIGTERM: task types echo, sleep and http, taken from stream ASSIGN."""
    import asyncio

    from router.bus.options import connect_arguments
    from router.cli.target import bus_options, settings_for
    from router.worker.worker import Options

    aliases = dict(_alias(a) for a in alias or ())
    where = bus_options(settings_for(nats=nats), name)
    asyncio.run(_run(Options(where.urls, name, concurrency, drain_s, aliases, connect_arguments(where))))


def _alias(text: str) -> tuple[str, str]:
    from router.worker.tasks import TASKS

    name, _, known = text.partition("=")
    if not name or known not in TASKS:
        raise typer.BadParameter(
            f"{text!r} is not TYPE=KNOWN with KNOWN one of {', '.join(TASKS)}", param_hint="--alias"
        )
    return name, known


async def _run(options: "Options") -> None:
    import asyncio
    import logging
    import signal

    from router.worker.worker import Worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    worker = Worker(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    await worker.run()
