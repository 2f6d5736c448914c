"""Every party with exactly the rights that `router acl` prints: all works, and no server refuses anything."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.cli import main
from router.cli.shared.exits import Exit
from router.domain.access import Party
from router.worker.job import Job
from router.worker.worker import Worker
from tests.cli.conftest import POLICY, Ran
from tests.fleet.foreign import RESULT, Foreign, task
from tests.fleet.harness import Fleet, until
from tests.servers import NatsProcess, ValkeyProcess

TOKENS = {"ROUTER_ADMIN_TOKEN": "a-token-of-this-test-that-is-long"}
TENANT = "acme"


class Strict(ValkeyProcess):
    """Pods have their least rights here, whatever the rest of the session does."""

    @property
    def pod_url(self) -> str:
        """The address for pods."""
        return self.url_of(Party.POD)


class StrictNats(NatsProcess):
    """The same for NATS."""

    @property
    def pod_url(self) -> str:
        """The address for pods."""
        return self.url_of(Party.POD)


@pytest.fixture
async def strict(servers: None, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Two pods. After the test no server has refused anything."""
    valkey, nats = Strict(tmp_path / "valkey"), StrictNats(tmp_path / "nats")
    nats.grant(TOKENS)
    async with Fleet(tmp_path / "fleet", pods=2, env=TOKENS, nats=nats, valkey=valkey) as fleet:
        yield fleet
        await fleet.nothing_was_refused()


class CommandLine:
    """Runs commands in this process, each in a thread with a loop of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._patch = patch

    def become(self, party: Party, fleet: Fleet) -> None:
        """Take a party's users."""
        self._patch.setenv("ROUTER_NATS_URL", fleet.nats.url_of(party))
        self._patch.setenv("ROUTER_REDIS_URL", fleet.valkey.url_of(party))

    def _main(self, words: list[str]) -> Ran:
        self._patch.setattr(sys, "argv", ["router", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self._capsys.readouterr()
        return Ran(int(end.value.code or 0), out, err)

    async def run(self, words: str) -> Ran:
        """One command, whatever its code."""
        return await asyncio.to_thread(self._main, words.split())

    async def __call__(self, words: str, *, code: int = Exit.OK) -> None:
        """One command, which ends with this code."""
        ran = await self.run(words)
        assert ran.code == code, (words, ran)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CommandLine:
    """`await command("policy list …")`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return CommandLine(capsys, monkeypatch)


async def test_pods_callers_and_workers(strict: Fleet) -> None:
    """Decided, pushed, run by the library, settled, answered with a final result; nothing is off."""
    for pod in strict.pods:
        assert (await pod.readyz())[1]["degraded"] == []
    tenant = await strict.tenant()
    worker = Worker(strict.nats.url_of(Party.WORKER), name="w")

    @worker.job("chat")
    async def chat(_job: Job[Any]) -> dict[str, str]:
        return {"text": "done"}

    running = asyncio.create_task(worker.run())
    try:
        async with Foreign(strict.nats.url_of(Party.CALLER)) as caller:
            assert (await caller.ask(task(tenant, "plain"))).ok
            assert (await caller.ask(task(tenant, "undispatched"))).ok
            inbox = f"_INBOX.final.{tenant}"
            finals = await caller.core(inbox)
            assert (
                await caller.ask(task(tenant, "pushed", push_assignment=True, options={"result_subject": inbox}))
            ).ok
            assert (await finals.one())["status"] == "success"

        async def metered() -> bool:
            return "usage.settled" in str(await strict.actions(tenant)) or await strict.outbox() == 0

        await until(metered, 20, "the usage is published")
    finally:
        worker.stop()
        await asyncio.wait_for(running, 30)


async def test_the_command_line(strict: Fleet, command: CommandLine, tmp_path: Path) -> None:
    """Every command that changes something, and the selftest."""
    command.become(Party.COMMAND_LINE, strict)
    document = tmp_path / "policy.json"
    document.write_text(POLICY)
    await command(f"policy apply {document} --tenant {TENANT}")
    await command(f"policy apply {document} --tenant {TENANT} --policy other")
    document.write_text(POLICY.replace("100", "50"))
    await command(f"policy apply {document} --tenant {TENANT} --policy other")
    await command(f"policy show --policy other --tenant {TENANT}")
    await command(f"policy rollback --policy other --to 2 --tenant {TENANT}")
    await command(f"policy delete --policy other --tenant {TENANT}")
    await command(f"policy history --tenant {TENANT}")
    await command(f"provider drain p1 --tenant {TENANT} --why test")
    await command(f"provider enable p1 --tenant {TENANT}")
    await command(f"breaker force-open p1 --tenant {TENANT} --why test")
    await command(f"breaker reset p1 --tenant {TENANT}")
    await command(f"decide --tenant {TENANT} --task chat --request-id one")
    await command(f"idempotency forget --tenant {TENANT} --request-id one")
    await command(f"tenant disable {TENANT} --why test")
    await command(f"tenant enable {TENANT}")
    await command(f"audit stats --tenant {TENANT}")
    await command(f"audit export --tenant {TENANT} --out {tmp_path / 'out'}")
    await command("usage reconcile")
    async with Foreign(strict.nats.url) as caller:
        await caller.tell(RESULT, {"status": "nonsense"}, {"Nats-Msg-Id": "m-1"})
        (letter,) = await dead_letters(command)
    await command(f"dlq show {letter}")
    await command(f"dlq redrive {letter}")
    await command("selftest --allow-volatile --tenant throw-away")
    await command(f"tenant purge {TENANT} --yes")


async def dead_letters(command: CommandLine) -> list[int]:
    """The ids of dead letters, once there is one."""
    for _ in range(100):
        ran = await command.run("dlq list --json")
        if ran.code == Exit.OK and json.loads(ran.out):
            return [int(letter["id"]) for letter in json.loads(ran.out)]
        await asyncio.sleep(0.1)
    raise AssertionError("no dead letter")


async def test_an_operator(strict: Fleet, command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command that only reads."""
    tenant = await strict.tenant()
    async with Foreign(strict.nats.url) as caller:
        first = await caller.ask(task(tenant, "one"))
    command.become(Party.OPERATOR, strict)
    await command(f"audit query --tenant {tenant}")
    await command(f"audit tail --tenant {tenant}")
    await command(f"audit stats --tenant {tenant}")
    await command("audit unknown", code=Exit.NEGATIVE)
    await command(f"explain --tenant {tenant} --id {first.decision['decision_id']}")
    await command("tenant list")
    await command(f"tenant show {tenant}")
    await command("breaker list", code=Exit.NEGATIVE)
    await command(f"provider list --tenant {tenant}")
    await command(f"policy list --tenant {tenant}")
    await command(f"policy show --tenant {tenant}")
    await command(f"policy history --tenant {tenant}")
    await command("alerts")
    monkeypatch.setenv("ROUTER_VIEWER_TOKEN", TOKENS["ROUTER_ADMIN_TOKEN"])
    await command(f"explain --dry-run --tenant {tenant} --task chat")
