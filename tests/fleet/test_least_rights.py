"""Every party with exactly the rights that `router acl` prints: all works, and no server refuses anything."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import AckPolicy

from router.app.adapter_settings import nats_account
from router.bus.rights import authorization, user
from router.cli import main
from router.cli.shared.exits import Exit
from router.cli.shared.parties import COMMANDS
from router.domain.access import PLACEHOLDER, Party
from router.settings import load
from router.worker.job import Job
from router.worker.worker import Worker
from tests.cli.conftest import POLICY, Ran
from tests.fleet.foreign import ACK, DECIDE, RESULT, Foreign, task
from tests.fleet.harness import Fleet, until
from tests.servers import PASSWORD, NatsProcess, ValkeyProcess, free_port

SETTINGS = {
    "ROUTER_ADMIN_TOKEN": "a-token-of-this-test-that-is-long",
    "ROUTER_NATS_INBOX_PREFIX": "_INBOX.router-pod",
    # Work of one tenant that a consumer of its own delivers.
    "ROUTER_ASSIGN_SUBJECTS": "caf.exec.acme",
    "ROUTER_STREAM_ASSIGN_FILTER": "caf.exec.assign.v1",
}
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


def printed_for(nats: NatsProcess, tenant: str) -> str:
    """The users that `router acl nats --for caller --for worker --tenant T --consumer of-T` prints."""
    account = nats_account(load({"ROUTER_NATS_URL": nats.url, **SETTINGS}), tenant, consumer=f"of-{tenant}")
    block = authorization((party, user(party, account)) for party in (Party.CALLER, Party.WORKER))
    users = block[block.index("[") + 1 : block.rindex("]")]
    return users.replace(PLACEHOLDER, PASSWORD)


@pytest.fixture
async def strict(servers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    """Two pods. After the test no server has refused anything."""
    valkey, nats = Strict(tmp_path / "valkey"), StrictNats(tmp_path / "nats")
    nats.grant(SETTINGS, printed_for(nats, TENANT))
    monkeypatch.setenv("ROUTER_VIEWER_TOKEN", SETTINGS["ROUTER_ADMIN_TOKEN"])
    async with Fleet(tmp_path / "fleet", pods=2, env=SETTINGS, nats=nats, valkey=valkey) as fleet:
        yield fleet
        await fleet.nothing_was_refused()


class CommandLine:
    """Runs commands in this process, each in a thread with a loop of its own, as the party that the table names."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._patch = patch
        self.fleet: Fleet | None = None
        self.done: set[str] = set()

    def become(self, *, nats: Party | str, redis: Party | str, inbox: str = "_INBOX.nobody") -> None:
        """Take these users."""
        assert self.fleet is not None
        self._patch.setenv("ROUTER_NATS_URL", self.fleet.nats.url_of(nats))
        self._patch.setenv("ROUTER_NATS_INBOX_PREFIX", f"_INBOX.router-{nats}" if isinstance(nats, Party) else inbox)
        self._patch.setenv("ROUTER_REDIS_URL", self.fleet.valkey.url_of(redis))

    def _main(self, words: list[str]) -> Ran:
        self._patch.setattr(sys, "argv", ["router", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self._capsys.readouterr()
        return Ran(int(end.value.code or 0), out, err)

    async def run(self, words: str) -> Ran:
        """One command, whatever its code; as the users of the moment."""
        return await asyncio.to_thread(self._main, words.split())

    async def __call__(self, words: str, *, code: int = Exit.OK, name: str | None = None) -> Ran:
        """One command as its party; it ends with this code. A server that it does not use has a user without rights."""
        found = name or max((n for n in COMMANDS if words.startswith(n)), key=len)
        needs = COMMANDS[found]
        assert needs.party is not None
        self.become(nats=needs.party if needs.nats else "nobody", redis=needs.party if needs.redis else "nobody")
        ran = await self.run(words)
        assert ran.code == code, (words, ran)
        assert "not announced" not in ran.err, (words, ran)
        self.done.add(found)
        return ran


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CommandLine:
    """`await command("policy list …")`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return CommandLine(capsys, monkeypatch)


async def test_pods_callers_and_workers(strict: Fleet) -> None:
    """Decided, pushed, run by the library, settled, answered with a final result; nothing is off."""
    await all_works(strict)


async def all_works(strict: Fleet, js_prefix: str = "$JS.API") -> None:
    """A caller and a worker with their printed rights get a task through a fleet of which no part is off."""
    for pod in strict.pods:
        assert (await pod.readyz())[1]["degraded"] == []
    tenant = await strict.tenant()
    worker = Worker(
        strict.nats.url_of(Party.WORKER),
        name="w",
        connect={"inbox_prefix": "_INBOX.router-worker"},
        js_prefix=js_prefix,
    )

    @worker.job("chat")
    async def chat(_job: Job[Any]) -> dict[str, str]:
        return {"text": "done"}

    running = asyncio.create_task(worker.run())
    try:
        async with Foreign(strict.nats.url_of(Party.CALLER), inbox_prefix="_INBOX.router-caller") as caller:
            assert (await caller.ask(task(tenant, "plain"))).ok
            assert (await caller.ask(task(tenant, "undispatched"))).ok
            inbox = f"_INBOX.router-caller.final.{tenant}"
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


async def test_behind_a_leaf_node_and_without_config(servers: None, tmp_path: Path) -> None:
    """The printed users of a leaf node whose JetStream is at a hub, and a Redis with the printed ACL and no CONFIG: all
    works as it does elsewhere, and nothing is refused."""
    leaf = free_port()
    hub = NatsProcess(tmp_path / "hub", extra=f"leafnodes {{ listen: 127.0.0.1:{leaf} }}", domain="hub")
    await asyncio.to_thread(hub.start)
    try:
        remote = f"leafnodes {{ remotes: [{{ url: 'nats-leaf://127.0.0.1:{leaf}' }}] }}"
        nats = StrictNats(tmp_path / "nats", extra=f"jetstream: disabled\n{remote}")
        valkey = Strict(tmp_path / "valkey", args=("--rename-command", "CONFIG", ""))
        env = SETTINGS | {"ROUTER_NATS_JS_DOMAIN": "hub"}
        nats.grant(env)
        async with Fleet(tmp_path / "fleet", pods=1, env=env, nats=nats, valkey=valkey) as fleet:
            await all_works(fleet, js_prefix="$JS.hub.API")
            await fleet.nothing_was_refused()
    finally:
        await asyncio.to_thread(hub.stop)


async def test_every_command(strict: Fleet, command: CommandLine, tmp_path: Path) -> None:
    """Each command under the rights of the party that the table names, and of no other; no server refuses anything."""
    command.fleet = strict
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
    await command(f"policy list --tenant {TENANT}")
    await command(f"provider drain p1 --tenant {TENANT} --why test")
    await command(f"provider enable p1 --tenant {TENANT}")
    await command(f"provider list --tenant {TENANT}")
    await command(f"breaker force-open p1 --tenant {TENANT} --why test")
    await command("breaker list")
    await command(f"breaker reset p1 --tenant {TENANT}")
    decided = json.loads((await command(f"decide --tenant {TENANT} --task chat --request-id one --json")).out)
    await command(f"explain --tenant {TENANT} --id {decided['decision']['decision_id']}")
    await command(f"explain --dry-run --tenant {TENANT} --task chat", name="explain --dry-run")
    await command(f"idempotency forget --tenant {TENANT} --request-id one")
    await command(f"tenant disable {TENANT} --why test")
    await command(f"tenant enable {TENANT}")
    await command("tenant list")
    await command(f"tenant show {TENANT}")
    await command(f"audit query --tenant {TENANT}")
    await command(f"audit tail --tenant {TENANT}")
    await command(f"audit stats --tenant {TENANT}")
    await command("audit unknown", code=Exit.NEGATIVE)
    await command(f"audit export --tenant {TENANT} --out {tmp_path / 'out'}")
    await command("usage reconcile")
    await command("usage tail", code=Exit.NEGATIVE)
    await command("alerts")
    async with Foreign(strict.nats.url) as caller:
        await caller.tell(RESULT, {"status": "nonsense"}, {"Nats-Msg-Id": "m-1"})
        (letter,) = await dead_letters(command)
    await command(f"dlq show {letter}")
    await command(f"dlq redrive {letter}")
    await command("selftest --allow-volatile --tenant throw-away")
    await command(f"tenant purge {TENANT} --yes")
    of_servers = {name for name, needs in COMMANDS.items() if needs.party is not None}
    # A pod and a worker have tests of their own.
    assert of_servers - command.done == {"serve", "worker"}


async def test_a_tenants_caller_and_worker(strict: Fleet, command: CommandLine, tmp_path: Path) -> None:
    """`router acl nats --tenant acme`: decides, looks up, and `router worker` runs the tenant's tasks; nothing else is
    permitted, and the worker leaves a task of another tenant to others."""
    command.fleet = strict
    other = await strict.tenant()
    await strict.publisher.apply(TENANT, policy_id="default", document=POLICY.encode())
    async with Foreign(strict.nats.url) as anyone:
        await anyone.client.jetstream().add_consumer(
            "ASSIGN", durable_name="of-acme", filter_subject="caf.exec.acme", ack_policy=AckPolicy.EXPLICIT
        )
        users = {
            "ROUTER_NATS_URL": strict.nats.url_of("router-worker-acme"),
            "ROUTER_NATS_INBOX_PREFIX": "_INBOX.router-worker-acme",
        }
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router", "worker", "--tenant", TENANT, "--consumer", "of-acme"),
            env=os.environ | users,
            cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            url, inbox = strict.nats.url_of("router-caller-acme"), "_INBOX.router-caller-acme"
            async with Foreign(url, inbox_prefix=inbox) as caller:
                finals = await caller.core(f"{inbox}.final")
                body = task(TENANT, push_assignment=True, assignment_subject="caf.exec.acme")
                body["task"]["type"] = "echo"
                body["options"] = {"result_subject": f"{inbox}.final", "deadline_ms": 90_000}
                assert (await caller.ask(body, subject=f"{DECIDE}.{TENANT}")).ok
                assert (await finals.one(within_s=90))["status"] == "success"
            taken = await anyone.core(f"{ACK}.>")
            assert (await anyone.ask(task(other, push_assignment=True, assignment_subject="caf.exec.acme"))).ok
            assert other in await asyncio.wait_for(line_with(worker, "passed on"), 60)
            assert taken.seen == []
        finally:
            worker.terminate()
            await asyncio.wait_for(worker.wait(), 30)
    command.become(nats="router-caller-acme", redis="nobody", inbox="_INBOX.router-caller-acme")
    ran = await command.run(f"decide --tenant {TENANT} --task chat")
    assert ran.code == Exit.OK, ran
    await strict.nothing_was_refused()
    ran = await command.run("decide --tenant globex --task chat")
    assert ran.code == Exit.USAGE
    assert f"publish to {DECIDE}.globex, nor to {DECIDE} " in ran.err
    strict.nats.log.write_text("")


async def line_with(process: asyncio.subprocess.Process, words: str) -> str:
    """The first line of the process's log that holds the words."""
    assert process.stderr is not None
    seen: list[str] = []
    while line := (await process.stderr.readline()).decode():
        seen.append(line)
        if words in line:
            return line
    raise AssertionError("".join(seen))


async def dead_letters(command: CommandLine) -> list[int]:
    """The ids of dead letters, once there is one."""
    for _ in range(100):
        command.become(nats=Party.VIEWER, redis="nobody")
        ran = await command.run("dlq list --json")
        if ran.code == Exit.OK and json.loads(ran.out):
            command.done.add("dlq list")
            return [int(letter["id"]) for letter in json.loads(ran.out)]
        await asyncio.sleep(0.1)
    raise AssertionError("no dead letter")


ARGUMENTS = {
    "policy apply": "policy.json --tenant acme",
    "policy delete": "--policy default --tenant acme",
    "policy rollback": "--to 1 --tenant acme",
    "provider drain": "p1 --tenant acme",
    "provider enable": "p1 --tenant acme",
    "breaker force-open": "p1 --tenant acme",
    "breaker reset": "p1 --tenant acme",
    "breaker list": "",
    "decide": "--tenant acme --task chat --wait",
    "explain": "--tenant acme --id 1-1",
    "explain --dry-run": "--tenant acme --task chat",
    "idempotency forget": "--tenant acme --request-id one",
    "tenant disable": "acme",
    "tenant enable": "acme",
    "tenant list": "",
    "tenant show": "acme",
    "tenant purge": "acme --yes",
    "audit unknown": "",
    "audit export": "--tenant acme --out out",
    "usage reconcile": "",
    "usage tail": "",
    "dlq list": "",
    "dlq show": "1",
    "dlq redrive": "1",
    "alerts": "",
}
"""What a command needs beside `--tenant acme`."""


async def test_what_a_server_refuses_is_named(strict: Fleet, command: CommandLine, tmp_path: Path) -> None:
    """Every command, once without rights in Redis and once in NATS: exit code 2, the right, the setting, and soon."""
    command.fleet = strict
    await strict.publisher.apply(TENANT, policy_id="default", document=POLICY.encode())
    (tmp_path / "policy.json").write_text(POLICY.replace("100", "40"))
    for name, needs in COMMANDS.items():
        if needs.party is None or name in ("serve", "worker", "selftest"):
            continue
        words = f"{name} {ARGUMENTS.get(name, '--tenant acme')}"
        if needs.redis:
            command.become(nats=needs.party, redis="nobody")
            ran = await command.run(words)
            assert ran.code == Exit.USAGE, (words, ran)
            assert "Redis does not allow " in ran.err, (words, ran)
            assert "router acl redis" in ran.err, (words, ran)
        if needs.nats:
            command.become(nats="nobody", redis=needs.party)
            started = time.monotonic()
            ran = await command.run(words)
            assert time.monotonic() - started < 4.5, (words, ran)
            announces = needs.redis and needs.party is Party.ADMIN
            assert ran.code == (Exit.OK if announces else Exit.USAGE), (words, ran)
            assert "NATS does not permit this user to" in ran.err, (words, ran)
            assert "ROUTER_NATS_" in ran.err, (words, ran)
            assert "router acl nats" in ran.err, (words, ran)
            assert "traceback" not in ran.err.lower(), (words, ran)


@pytest.mark.parametrize("words", ["alerts", "decide --tenant acme --task chat", "usage tail"])
async def test_a_login_that_nats_refuses_is_named(
    servers: None, tmp_path: Path, command: CommandLine, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """Not "is a fleet there": exit code 2 and the settings of the login, without the password."""
    nats = NatsProcess(tmp_path / "nats")
    nats.grant({})
    await asyncio.to_thread(nats.start)
    try:
        monkeypatch.setenv("ROUTER_NATS_URL", nats.url_of(Party.VIEWER).replace(PASSWORD, "wrong-word"))
        ran = await command.run(words)
    finally:
        await asyncio.to_thread(nats.stop)
    assert ran.code == Exit.USAGE, ran
    assert "uthorization" in ran.err
    assert "ROUTER_NATS_USER" in ran.err
    assert "wrong-word" not in ran.err


@pytest.mark.parametrize("words", ["policy list --tenant acme", "audit tail --tenant acme", "breaker list"])
async def test_a_login_that_redis_refuses_is_named(
    valkey: ValkeyProcess, command: CommandLine, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """The same for Redis."""
    monkeypatch.setenv("ROUTER_REDIS_URL", valkey.url_of(Party.VIEWER).replace(PASSWORD, "wrong-word"))
    ran = await command.run(words)
    assert ran.code == Exit.USAGE, ran
    assert "username-password" in ran.err
    assert "ROUTER_REDIS_USERNAME" in ran.err
    assert "wrong-word" not in ran.err
