"""`router alerts`: the alerts that the fleet raised."""

from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.shared.audit_rows import moment_ms
from router.cli.shared.output import note, print_json, print_table
from router.cli.shared.target import JsonOption, NatsOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.bus.client.connection import Bus
    from router.settings import Settings
    from router.usecases.alerts.log import AlertLog, Episode

    Wanted = Callable[[Episode], bool]


SEVERITIES = ("critical", "warning", "info")


def alerts(
    since: Annotated[str, typer.Option(help="Since a time (2026-01-31T12:00Z) or an age (15m, 1d).")] = "1d",
    open_: Annotated[bool, typer.Option("--open", help="Only alerts that are still open.")] = False,
    severity: Annotated[str | None, typer.Option(help="critical, warning or info.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new ones, until Ctrl-C.")] = False,
    json: JsonOption = False,
    nats: NatsOption = None,
) -> None:
    """Show alerts, each with its end, oldest first. With --follow, --json prints one JSON document a line.

    Example: router alerts --open --severity critical
    """
    import asyncio

    from router.cli.shared.target import settings_for

    settings = settings_for(nats=nats)
    if severity is not None and severity not in SEVERITIES:
        raise typer.BadParameter(f"{severity!r} is none of {', '.join(SEVERITIES)}", param_hint="--severity")

    def wanted(e: "Episode") -> bool:
        return not (open_ and e.resolved_at is not None) and severity in (None, e.severity)

    asyncio.run(_show(settings, moment_ms(since, option="--since"), wanted, follow=follow, json=json))


async def _show(settings: "Settings", since_ms: int | None, chosen: "Wanted", *, follow: bool, json: bool) -> None:
    import msgspec

    from router.bus.streams.history import StreamHistory
    from router.cli.shared.bus import open_bus
    from router.usecases.alerts.log import alert_log
    from router.wire import subjects

    async with open_bus(settings) as bus:
        log = await alert_log(
            StreamHistory(bus, settings.stream_alert_name, subjects=(f"{subjects.ALERT}.*",)), since_ms
        )
        found = [e for e in log.episodes if chosen(e)]
        if json and not follow:
            print_json(msgspec.to_builtins(found))
        elif json:
            for e in found:
                _line(e, json=True)
        elif found:
            rows = [(e.raised_at, e.resolved_at or "holds", e.severity, e.condition, e.scope, e.message) for e in found]
            columns = ("raised", "resolved", "severity", "condition", "scope", "message")
            print_table(columns, rows, whole=("raised", "resolved", "severity", "condition"))
        else:
            note("no alert matches")
        if follow:
            await _follow(bus, log, chosen, json=json)


async def _follow(bus: "Bus", log: "AlertLog", chosen: "Wanted", *, json: bool) -> None:
    """Print alerts that are raised and resolved from now on, until Ctrl-C."""
    import asyncio

    from router.wire import subjects

    def arrived(_subject: bytes, _reply: bytes, data: bytes, _raw: bytes | None) -> None:
        episode = log.add(data)
        if episode is not None and chosen(episode):
            _line(episode, json=json)

    await bus.subscribe(f"{subjects.ALERT}.*", arrived)
    await asyncio.Event().wait()


def _line(e: "Episode", *, json: bool) -> None:
    import sys

    import msgspec

    if json:
        text = msgspec.json.encode(e).decode()
    else:
        state = "raised" if e.resolved_at is None else "resolved"
        text = "  ".join((e.resolved_at or e.raised_at or "", state, e.severity, e.condition, e.scope, e.message))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
