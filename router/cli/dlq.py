"""`router dlq`: list, show, redrive."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.shared.audit_rows import SinceOption, moment, moment_ms
from router.cli.shared.exits import Exit
from router.cli.shared.names import OnlyTenantOption
from router.cli.shared.output import note, print_facts, print_json, print_table
from router.cli.shared.target import JsonOption, NatsOption

if TYPE_CHECKING:
    from router.bus.client.connection import Bus
    from router.bus.streams.history import StreamHistory
    from router.usecases.messages.dead_letters import Filter, Original, Redriven, StoredDeadLetter

app = typer.Typer(help="Messages that could not be handled.", no_args_is_help=True)

LARGEST_ID = 2**64 - 1
SubjectOption = Annotated[str | None, typer.Option(help="Dead letters of this original subject.")]
ReasonOption = Annotated[str | None, typer.Option(help="Dead letters whose reason or error code contains this text.")]


class _Streams:
    """The dead-letter stream, and the streams its messages came from."""

    def __init__(self, bus: "Bus", dlq: "StreamHistory", origins: "dict[str, StreamHistory]") -> None:
        self.bus, self.dlq, self.origins = bus, dlq, origins


@app.command("list")
def list_(
    subject: SubjectOption = None,
    reason: ReasonOption = None,
    tenant: OnlyTenantOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest N, at most.")] = 50,
    json: JsonOption = False,
    nats: NatsOption = None,
) -> None:
    """Show dead letters, newest first. Exit code 1: there is none."""
    import asyncio

    found = asyncio.run(_list(nats, _filter(subject=subject, reason=reason, tenant=tenant, since=since), limit))
    if json:
        print_json([_facts(f) for f in found])
    elif found:
        rows = [
            (
                f.sequence,
                moment(f.at_ms * 1000),
                f.letter.original_subject,
                f.letter.tenant_id,
                f.letter.error_code,
                f.letter.reason,
            )
            for f in found
        ]
        print_table(("id", "time", "subject", "tenant", "code", "reason"), rows, whole=("id", "time", "subject"))
    else:
        note("no dead letter matches")
    raise typer.Exit(Exit.OK if found else Exit.NEGATIVE)


@app.command()
def show(
    letter: Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="The id that `list` shows.")],
    json: JsonOption = False,
    nats: NatsOption = None,
) -> None:
    """Show one dead letter, with its message if that is stored. Exit code 1: there is no such dead letter."""
    import asyncio

    found, message = asyncio.run(_show(nats, letter))
    if found is None:
        note(f"there is no dead letter {letter} (see `router dlq list`)")
        if json:
            print_json(None)
        raise typer.Exit(Exit.NEGATIVE)
    facts = _facts(found)
    if message is not None:
        facts |= {"payload": message.payload.decode(errors="replace"), "headers": dict(message.headers)}
    if json:
        print_json(facts)
    else:
        print_facts(facts.items())
        if message is None:
            note("the message is gone: the dead letter has only its hash")


@app.command()
def redrive(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="Ids that `list` shows.")
    ] = None,
    subject: SubjectOption = None,
    reason: ReasonOption = None,
    tenant: OnlyTenantOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest N that match, at most.")] = 100,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the dead letters in the stream.")] = False,
    json: JsonOption = False,
    nats: NatsOption = None,
) -> None:
    """Send messages again to the subjects they came from, by id or by filter.

    Each is published once, with a new message id. The pods count it and record in the tenant's audit who did it. A dead
    letter leaves the stream once its message is stored. Exit code 1: a message was not sent, or nothing matches.

    Example: router dlq redrive --reason SERVER_ERROR --since 2h
    """
    import asyncio

    chosen = _filter(subject=subject, reason=reason, tenant=tenant, since=since)
    if bool(ids) == (chosen != _filter(subject=None, reason=None, tenant=None, since=None)):
        raise typer.BadParameter("give ids, or a filter: --subject, --reason, --tenant or --since", param_hint="ID")
    done = asyncio.run(_redrive(nats, ids or [], chosen, limit, keep=keep))
    if json:
        import msgspec

        print_json(msgspec.to_builtins(done))
    elif done:
        rows = [(d.sequence, d.subject, d.outcome, d.message) for d in done]
        print_table(("id", "subject", "outcome", "why"), rows, whole=("id", "subject"))
    else:
        note("no dead letter matches")
    sent = [d for d in done if d.outcome in ("redriven", "duplicate")]
    raise typer.Exit(Exit.OK if done and len(sent) == len(done) else Exit.NEGATIVE)


def _filter(*, subject: str | None, reason: str | None, tenant: str | None, since: str | None) -> "Filter":
    from router.usecases.messages.dead_letters import Filter

    return Filter(subject=subject, reason=reason, tenant_id=tenant, since_ms=moment_ms(since, option="--since"))


@asynccontextmanager
async def _open(nats: str | None) -> AsyncIterator[_Streams]:
    from router.bus.streams.history import StreamHistory
    from router.cli.shared.bus import open_bus
    from router.cli.shared.target import settings_for
    from router.wire import subjects

    settings = settings_for(nats=nats)
    async with open_bus(settings) as bus:
        origins = {
            subjects.RESULT: StreamHistory(bus, settings.stream_result_name),
            subjects.ACK: StreamHistory(bus, settings.stream_ack_name),
        }
        dead_letters = [f"{subject}.dlq" for subject in origins]
        yield _Streams(bus, StreamHistory(bus, settings.stream_dlq_name, subjects=dead_letters), origins)


async def _list(nats: str | None, chosen: "Filter", limit: int) -> "list[StoredDeadLetter]":
    from router.usecases.messages.dead_letters import find_dead_letters

    async with _open(nats) as streams:
        return await find_dead_letters(streams.dlq, chosen, maximum=limit)


async def _show(nats: str | None, sequence: int) -> "tuple[StoredDeadLetter | None, Original | None]":
    from router.usecases.messages.dead_letters import get_dead_letter, original_message

    async with _open(nats) as streams:
        found = await get_dead_letter(streams.dlq, sequence)
        return found, None if found is None else await original_message(found, streams.origins)


async def _redrive(nats: str | None, ids: list[int], chosen: "Filter", limit: int, *, keep: bool) -> "list[Redriven]":
    import getpass
    from functools import partial

    from router.bus.publishing.puback import publish_once
    from router.usecases.messages.dead_letters import Outcome, Redrive, Redriven, find_dead_letters, get_dead_letter

    async with _open(nats) as streams:
        again = Redrive(
            streams.dlq, streams.origins, partial(publish_once, streams.bus), by=getpass.getuser(), keep=keep
        )
        if not ids:
            return [
                await again(found) for found in reversed(await find_dead_letters(streams.dlq, chosen, maximum=limit))
            ]
        done: list[Redriven] = []
        for sequence in ids:
            found = await get_dead_letter(streams.dlq, sequence)
            missing = Redriven(sequence, "", Outcome.FAILED, "there is no such dead letter")
            done.append(missing if found is None else await again(found))
        return done


def _facts(found: "StoredDeadLetter") -> dict[str, Any]:
    dead_letter = found.letter
    return {
        "id": found.sequence,
        "time": moment(found.at_ms * 1000),
        "original_subject": dead_letter.original_subject,
        "reason": dead_letter.reason,
        "error_code": dead_letter.error_code,
        "tenant_id": dead_letter.tenant_id,
        "trace_id": dead_letter.trace_id,
        "original_msg_id": found.original_msg_id,
        "payload_sha256": dead_letter.payload_sha256,
        "payload_kept": dead_letter.payload is not None,
        "context": dead_letter.context,
    }
