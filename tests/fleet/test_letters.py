"""Dead letters and alerts, by the commands that people use."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID

from router.domain.policy.model import provider_entry
from tests.cli.conftest import Ran, run_process
from tests.fleet.conftest import Own
from tests.fleet.foreign import ASSIGN, RESULT, USAGE, Body, Foreign, success, task
from tests.fleet.harness import Fleet, until

PATIENT = {"deadline_ms": 120_000}
"""So that a slow machine does not end the attempt in between."""


async def command(fleet: Fleet, cwd: Path, *words: str) -> tuple[Ran, Any]:
    """Run one with --json; what it did and said."""
    ran = await run_process(*words, "--nats", fleet.nats.url, "--json", cwd=cwd)
    return ran, json.loads(ran.out) if ran.out else None


async def letters(fleet: Fleet, cwd: Path, count: int, *words: str) -> list[Body]:
    """`router dlq list`, once there are so many."""

    async def look() -> list[Body] | None:
        _, found = await command(fleet, cwd, "dlq", "list", *words)
        return found if found is not None and len(found) >= count else None

    found: list[Body] = await until(look, 15, f"{count} dead letters")
    return found


async def test_a_dead_letter_is_listed_shown_and_sent_again(own: Own, tmp_path: Path) -> None:
    """Under a new message id, so that the stream takes it; it fails again and is a new letter, the old one is gone."""
    fleet, caller = await own(pods=1)
    await caller.tell(RESULT, {"status": "nonsense"}, {"Nats-Msg-Id": "m-1", "Content-Type": "application/json"})
    (first,) = await letters(fleet, tmp_path, 1)
    assert (first["original_subject"], first["original_msg_id"], first["payload_kept"]) == (RESULT, "m-1", False)
    ran, shown = await command(fleet, tmp_path, "dlq", "show", str(first["id"]))
    assert (ran.code, json.loads(shown["payload"])) == (0, {"status": "nonsense"})
    ran, done = await command(fleet, tmp_path, "dlq", "redrive", str(first["id"]))
    assert (ran.code, [d["outcome"] for d in done]) == (0, ["redriven"])

    async def second() -> Body | None:
        found = await letters(fleet, tmp_path, 1)
        return found[0] if found[0]["id"] != first["id"] and len(found) == 1 else None

    again = await until(second, 15, "the message was given up on again")
    assert again["context"]["stream_sequence"] > first["context"]["stream_sequence"]
    assert await fleet.total("router_redriven_total") == 1
    ran, _ = await command(fleet, tmp_path, "dlq", "show", str(first["id"]))
    assert ran.code == 1


async def test_a_result_that_is_sent_again_settles_and_the_audit_says_so(own: Own, tmp_path: Path) -> None:
    """The record was unreadable for a while, as after a roll back: the letter has all that is needed."""
    fleet, caller = await own(pods=1, env={"ROUTER_DEAD_LETTER_PAYLOADS": "true"})
    tenant = await fleet.tenant()
    works = await caller.watch(ASSIGN)
    reply = await caller.ask(task(tenant, "r1", push_assignment=True))
    assert reply.ok
    result = success(await works.one(tenant_id=tenant))
    await caller.tell(RESULT, result | {"tenant_id": "somebody-else"})
    (letter,) = await letters(fleet, tmp_path, 1, "--tenant", tenant, "--reason", "belongs to another tenant")
    ran, done = await command(fleet, tmp_path, "dlq", "redrive", "--tenant", tenant)
    assert (ran.code, [d["sequence"] for d in done]) == (0, [letter["id"]])

    async def noted() -> list[str] | None:
        found = [str(e.details.get("note")) for e in await fleet.audit(tenant) if e.action == "result.violation"]
        return found if len(found) == 2 else None

    notes = await until(noted, 15, "it was a violation again")
    assert f"dead letter {letter['id']}, sent again by" in notes[1]


async def test_a_result_that_could_not_be_settled_is_metered_after_the_redrive(own: Own, tmp_path: Path) -> None:
    """A damaged key makes the move fail for good; when it is mended, the letter settles the task, once."""
    fleet, caller = await own(pods=1, env={"ROUTER_DEAD_LETTER_AFTER": "2"})
    tenant = await fleet.tenant({"version": "1.0", "providers": [{"name": "only", "weight": 1, "max_concurrency": 5}]})
    works, usage = await caller.watch(ASSIGN), await caller.watch(USAGE)
    assert (await caller.ask(task(tenant, push_assignment=True, options=PATIENT))).ok
    work = await works.one(tenant_id=tenant)
    lease = fleet.keys.tenant(tenant).lease(provider_entry("only"))
    assert await fleet.redis("DEL", lease) == 1
    await fleet.redis("SET", lease, "damaged")
    await caller.tell(RESULT, success(work))
    (letter,) = await letters(fleet, tmp_path, 1, "--tenant", tenant)
    assert "WRONGTYPE" in letter["reason"]
    assert usage.where(tenant_id=tenant) == []
    await fleet.redis("DEL", lease)
    ran, _ = await command(fleet, tmp_path, "dlq", "redrive", str(letter["id"]))
    assert ran.code == 0
    await usage.one(tenant_id=tenant)
    assert (await fleet.actions(tenant)).count("result.settled") == 1


async def test_a_result_of_an_unreadable_task_waits_for_newer_pods_and_is_kept(own: Own, tmp_path: Path) -> None:
    """After its tries it is a dead letter, and the record is left as it is."""
    fleet, caller = await own(pods=1, env={"ROUTER_DEAD_LETTER_AFTER": "1"})
    tenant = await fleet.tenant()
    works = await caller.watch(ASSIGN)
    assert (await caller.ask(task(tenant, push_assignment=True, options=PATIENT))).ok
    work = await works.one(tenant_id=tenant)
    key = fleet.keys.task(UUID(work["task_id"]).bytes)
    newer = b"\x09" + bytes(80)
    await fleet.redis("SET", key, newer)
    await caller.tell(RESULT, success(work))
    (letter,) = await letters(fleet, tmp_path, 1)
    assert (letter["reason"], letter["context"]["delivered"]) == (
        "the record of its task or decision cannot be read",
        4,
    )
    assert await fleet.redis("GET", key) == newer


async def test_a_redrive_without_ids_or_filter_is_wrong_usage(tmp_path: Path) -> None:
    """Nobody means to send everything again by forgetting a word."""
    ran = await run_process("dlq", "redrive", cwd=tmp_path)
    assert ran.code == 2
    assert "--subject" in ran.err


async def test_a_redrive_of_what_is_gone_says_so(fleet: Fleet, caller: Foreign, tmp_path: Path) -> None:
    """Exit code 1; no fault of the program."""
    ran, done = await command(fleet, tmp_path, "dlq", "redrive", "999999")
    assert (ran.code, done[0]["outcome"]) == (1, "failed")


async def test_alerts_are_listed_with_their_ends(own: Own, tmp_path: Path) -> None:
    """One line an episode; `--open` leaves out what is over."""
    fleet, caller = await own(pods=1)
    await caller.tell(RESULT, {"status": "nonsense"})
    js = caller.client.jetstream()
    await js.add_stream(name="WIDE", subjects=["beamline.router.v1.status.>"])

    async def raised(*words: str) -> list[Body]:
        _, found = await command(fleet, tmp_path, "alerts", *words)
        return list(found)

    async def dead_letters() -> bool:
        return any(e["condition"] == "dead_letters" for e in await raised("--open"))

    await until(dead_letters, 15, "an alert about dead letters")
    # The keeper looks at each connection: a reconnect makes it look now.
    await _reconnect(fleet)

    async def covered() -> bool:
        return any(e["condition"] == "stream_covers_requests" for e in await raised("--open"))

    await until(covered, 15, "an alert about the stream")
    await js.delete_stream("WIDE")

    async def over() -> list[Body]:
        found = [e for e in await raised() if e["condition"] == "stream_covers_requests"]
        return found if found[0]["resolved_at"] else []

    (episode,) = await until(over, 15, "it is over")
    assert episode["raised_at"] < episode["resolved_at"]
    assert not await covered()


async def _reconnect(fleet: Fleet) -> None:
    await asyncio.to_thread(fleet.nats.kill)
    await asyncio.to_thread(fleet.nats.start)
