"""`router worker`."""

from typing import Annotated

import typer

from router.cli.shared.names import tenant_in_subjects
from router.cli.shared.target import NatsOption


def worker(
    nats: NatsOption = None,
    name: Annotated[str, typer.Option(help="The worker's name.")] = "example-worker",
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Tasks that run at the same time.")] = 32,
    drain_s: Annotated[
        float, typer.Option(min=0, help="Seconds that running tasks may take to finish after SIGTERM.")
    ] = 20.0,
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Run this tenant's tasks only, and report on its subjects; with --consumer.",
            callback=tenant_in_subjects,
        ),
    ] = None,
    consumer: Annotated[str, typer.Option(help="The consumer of stream ASSIGN that delivers the tasks.")] = "workers",
    alias: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE=KNOWN", help="Run a further task type like a known one. Repeatable."),
    ] = None,
) -> None:
    """Run the example worker until SIGTERM: task types echo, sleep and http, taken from stream ASSIGN.

    Example: router worker --alias chat=echo
    """
    import logging

    from router.bus.client.options import connect_arguments
    from router.cli.shared.target import bus_options, settings_for
    from router.worker import Worker
    from router.worker.tasks import register

    aliases = dict(_alias(a) for a in alias or ())
    settings = settings_for(nats=nats)
    where = bus_options(settings, name)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    example = Worker(
        where.urls,
        name=name,
        concurrency=concurrency,
        drain_s=drain_s,
        connect=connect_arguments(where),
        stream=settings.stream_assign_name,
        consumer=consumer,
        tenant=tenant,
        js_prefix=where.js_prefix,
    )
    register(example, aliases)
    example.run_until_signal()


def _alias(text: str) -> tuple[str, str]:
    from router.worker.tasks import TASKS

    name, _, known = text.partition("=")
    if not name or known not in TASKS:
        raise typer.BadParameter(
            f"{text!r} is not TYPE=KNOWN with KNOWN one of {', '.join(TASKS)}", param_hint="--alias"
        )
    return name, known
