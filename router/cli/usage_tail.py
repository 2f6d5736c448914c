"""`router usage tail`: the newest usage events."""

from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.shared.audit_rows import moment, moment_ms
from router.cli.shared.exits import Exit
from router.cli.shared.names import OnlyTenantOption
from router.cli.shared.output import note, print_line
from router.cli.shared.target import NatsOption

if TYPE_CHECKING:
    from router.settings import Settings

LINES_MAX = 10_000


def tail(
    tenant: OnlyTenantOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=LINES_MAX, help="How many of the newest.")] = 20,
    since: Annotated[str, typer.Option(help="Since a time (2026-01-31T12:00Z) or an age (15m, 1h).")] = "1d",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new ones, until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The unchanged events, one JSON document a line.")] = False,
    nats: NatsOption = None,
) -> None:
    """Show the newest usage events, oldest first. Exit code 1: there is none.

    Reads the stream of usage from `--since` on, and changes nothing.

    Example: router usage tail --tenant acme --follow
    """
    import asyncio

    from router.cli.shared.target import settings_for

    since_ms = moment_ms(since, option="--since")
    if not asyncio.run(_tail(settings_for(nats=nats), tenant, lines, since_ms, follow=follow, json=json)):
        note("no usage matches")
        raise typer.Exit(Exit.NEGATIVE)


async def _tail(
    settings: "Settings", tenant: str | None, lines: int, since_ms: int | None, *, follow: bool, json: bool
) -> bool:
    """Whether there was an event."""
    import asyncio

    from router.bus.streams.history import StreamHistory
    from router.cli.shared.bus import open_bus
    from router.wire.assignment import usage_identity
    from router.wire.subjects import USAGE

    def wanted(event: bytes) -> bool:
        return tenant is None or usage_identity(event).tenant_id == tenant

    async with open_bus(settings) as bus:
        newest: deque[bytes] = deque(maxlen=lines)
        fresh: asyncio.Queue[bytes] = asyncio.Queue()
        if follow:
            # Subscribe first, so that no event is missed; an event that arrives meanwhile may be shown twice.
            await bus.subscribe(USAGE, lambda _subject, _reply, data, _raw: fresh.put_nowait(data))
        async for batch in StreamHistory(bus, settings.stream_usage_name, subjects=(USAGE,)).read(since_ms=since_ms):
            newest.extend(m.data for m in batch if wanted(m.data))
        for event in newest:
            _show(event, json=json)
        while follow:
            event = await fresh.get()
            if wanted(event):
                _show(event, json=json)
        return bool(newest)


def _show(event: bytes, *, json: bool) -> None:
    import sys

    import orjson

    if json:
        print_line(event.decode(errors="replace"))
    else:
        try:
            fields = orjson.loads(event)
            print_line("  ".join(_cells(fields if isinstance(fields, dict) else {})))
        except orjson.JSONDecodeError:
            print_line("not a usage event: not JSON")
    sys.stdout.flush()


def _cells(event: dict[str, object]) -> list[str]:
    at = event.get("timestamp")
    shown = [moment(at * 1000) if isinstance(at, int) else "-"]
    shown += [str(event.get(name, "-")) for name in ("tenant_id", "provider_id", "event_type", "request_id")]
    for name, unit in (("latency_ms", " ms"), ("cost", " USD"), ("tokens", " tokens")):
        if event.get(name) is not None:
            shown.append(f"{event[name]}{unit}")
    return shown
