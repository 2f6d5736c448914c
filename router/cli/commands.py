"""All commands, with their names and the order in which the help shows them."""

import typer

from router.cli import (
    acl,
    alerts,
    audit,
    breaker,
    config,
    decide,
    dlq,
    explain,
    gate,
    idempotency,
    key,
    local,
    policy,
    provider,
    selftest,
    serve,
    tenant,
    usage,
    worker,
)
from router.cli.shared.exits import MEANINGS


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="router",
        help=(
            "A fleet of stateless routers: who runs this task for this tenant?\n\nExit "
            "codes: " + ", ".join(f"{int(code)} {words}" for code, words in MEANINGS.items()) + "."
        ),
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command()(local.local)
    app.command()(serve.serve)
    app.command()(decide.decide)
    app.command()(explain.explain)
    app.add_typer(policy.app, name="policy")
    app.add_typer(provider.app, name="provider")
    app.add_typer(breaker.app, name="breaker")
    app.add_typer(tenant.app, name="tenant")
    app.add_typer(idempotency.app, name="idempotency")
    app.add_typer(audit.app, name="audit")
    app.add_typer(usage.app, name="usage")
    app.add_typer(dlq.app, name="dlq")
    app.command()(alerts.alerts)
    app.command()(gate.gate)
    app.command()(worker.worker)
    app.command()(selftest.selftest)
    app.add_typer(key.app, name="key")
    app.add_typer(acl.app, name="acl")
    app.command()(config.config)
    app.command()(config.version)
    return app
