"""Rotation on real NATS servers: other credentials and certificates, under load, without a lost request."""

import asyncio
import os
import signal
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]  # it carries no types
import pytest
from nats.aio.client import Client

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from router.errors import BusError, InvalidInput
from tests.certificates import Authority
from tests.fleet.harness import until
from tests.nats_client import connect
from tests.nats_jwt import pair, token
from tests.servers import NatsProcess

CALLER = '{ user: "caller", password: "caller" }'
EVERY_S = 0.004


class Way:
    """One way to log in: what the server has, before and after, and the pod's options."""

    def __init__(self, server: NatsProcess, before: str, after: str, *options: dict[str, Any]) -> None:
        self.server, self.before, self.after = server, before, after
        self.old, self.new = options
        self.caller: dict[str, Any] = {"user": "caller", "password": "caller"}

    def options(self, given: dict[str, Any]) -> BusOptions:
        """Of the pod's connection."""
        return BusOptions((self.server.url,), connect_timeout_s=5, **given)

    async def revoke(self) -> None:
        """The server accepts only the new login from now on, and closes the connections of the old one."""
        config = self.server.data / "nats.conf"
        config.write_text(config.read_text().replace(self.before, self.after))
        os.kill(self.server.pid, signal.SIGHUP)


def _users(server: NatsProcess, before: str, after: str) -> tuple[str, str]:
    server.extra = f"authorization {{ users: [ {CALLER}, {before} ] }}"
    return server.extra, f"authorization {{ users: [ {CALLER}, {after} ] }}"


def by_password(folder: Path) -> Way:
    """Two users, as passwords are rotated without a gap."""
    server = NatsProcess(folder / "data")
    users = [f'{{ user: "pod-{n}", password: "secret-{n}" }}' for n in (1, 2)]
    before, after = _users(server, ", ".join(users), users[1])
    return Way(server, before, after, *({"user": f"pod-{n}", "password": f"secret-{n}"} for n in (1, 2)))


def by_nkey(folder: Path) -> Way:
    """Two nkeys."""
    server = NatsProcess(folder / "data")
    keys = [pair(nkeys.PREFIX_BYTE_USER) for _ in range(2)]
    users = [f"{{ nkey: {public} }}" for _, public, _ in keys]
    before, after = _users(server, ", ".join(users), users[1])
    seeds = [folder / f"{n}.nk" for n in range(2)]
    for file, (_, _, seed) in zip(seeds, keys, strict=True):
        file.write_text(seed)
    return Way(server, before, after, *({"nkey_seed": str(file)} for file in seeds))


def by_creds(folder: Path) -> Way:
    """Two users of one account; the first one's JWT is revoked by the account's."""
    operator, operator_id, _ = pair(nkeys.PREFIX_BYTE_OPERATOR)
    account, account_id, _ = pair(nkeys.PREFIX_BYTE_ACCOUNT)
    unlimited: dict[str, object] = dict.fromkeys(("subs", "data", "payload", "conn", "imports", "exports", "leaf"), -1)
    files, ids = [], []
    for n in range(3):
        _, user_id, seed = pair(nkeys.PREFIX_BYTE_USER)
        jwt = token(account, user_id, {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1})
        files.append(folder / f"{n}.creds")
        ids.append(user_id)
        files[-1].write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )

    def preload(revoked: dict[str, int]) -> str:
        claims: dict[str, object] = {"type": "account", "version": 2, "limits": unlimited, "revocations": revoked}
        return f"resolver_preload: {{ {account_id}: {token(operator, account_id, claims)} }}"

    before, after = preload({}), preload({ids[0]: 2_000_000_000})
    head = f"operator: {token(operator, operator_id, {'type': 'operator', 'version': 2})}\nresolver: MEMORY\n"
    server = NatsProcess(folder / "data", extra=f"{head}{before}\njetstream: disabled")
    way = Way(server, before, after, *({"creds": str(file)} for file in files[:2]))
    way.caller = {"user_credentials": str(files[2])}
    return way


def by_certificate(folder: Path) -> Way:
    """Another client certificate, of another authority; the server trusts both, then the new one only."""
    old, new = Authority(folder / "old"), Authority(folder / "new")
    own = new.issue("server")
    both = folder / "both.pem"
    both.write_bytes(old.ca.read_bytes() + new.ca.read_bytes())

    def tls(trusted: Path) -> str:
        return f"tls {{ cert_file: '{own.cert}', key_file: '{own.key}', ca_file: '{trusted}', verify: true }}"

    server = NatsProcess(folder / "data", extra=tls(both))
    certificates = [authority.issue("pod") for authority in (old, new)]
    given = [{"tls_ca": str(both), "tls_cert": str(found.cert), "tls_key": str(found.key)} for found in certificates]
    way = Way(server, tls(both), tls(new.ca), *given)
    context = ssl.create_default_context(cafile=new.ca)
    context.load_cert_chain(certificates[1].cert, certificates[1].key)
    way.caller = {"tls": context}
    return way


WAYS: dict[str, Callable[[Path], Way]] = {
    "password": by_password,
    "nkey": by_nkey,
    "creds": by_creds,
    "certificate": by_certificate,
}


async def _serve(bus: Bus) -> None:
    def answer(_subject: bytes, reply: bytes, data: bytes, _raw: bytes | None) -> None:
        bus.replies.send(reply, b"", data)

    await bus.subscribe("ask", answer, queue="pods")


class Load:
    """A caller that asks all the time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.sent = 0
        self.heard: list[bytes] = []
        self._inbox = client.new_inbox()

    async def run(self) -> None:
        """Ask until cancelled."""

        async def hear(message: Any) -> None:
            self.heard.append(message.data)

        await self._client.subscribe(self._inbox, cb=hear)
        while True:
            await self._client.publish("ask", b"%d" % self.sent, reply=self._inbox)
            self.sent += 1
            await asyncio.sleep(EVERY_S)

    async def more(self) -> None:
        """Wait for a hundred further requests."""
        enough = self.sent + 100
        await until(lambda: self.sent > enough, 20, "load")


async def _in(way: Way, act: Callable[[Bus, Load], Awaitable[None]]) -> None:
    """Act while a caller asks; afterwards every request has had one answer."""
    await asyncio.to_thread(way.server.start)
    bus = Bus(way.options(way.old))
    caller = await connect(way.server.url, **way.caller)
    try:
        await bus.start()
        assert await bus.wait_connected(10)
        await _serve(bus)
        load = Load(caller)
        asking = asyncio.create_task(load.run())
        await load.more()
        await act(bus, load)
        await load.more()
        asking.cancel()
        await until(lambda: len(load.heard) >= load.sent, 10, "every answer")
        assert sorted(load.heard, key=int) == [b"%d" % n for n in range(load.sent)]
    finally:
        await caller.close()
        await bus.close()
        await asyncio.to_thread(way.server.stop)


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
async def test_a_rotation_loses_no_request(servers: None, tmp_path: Path, make: Callable[[Path], Way]) -> None:
    """The new login is used while the old one works; then the server revokes the old one, and nothing happens."""
    way = make(tmp_path)

    async def act(bus: Bus, load: Load) -> None:
        connects = bus.connection
        await bus.renew(way.options(way.new))
        assert bus.connection == connects + 1
        await load.more()
        await way.revoke()
        await load.more()
        await bus.flush()
        assert bus.connection == connects + 1

    # A reload of `tls` or `resolver_preload` takes effect for new connections.
    await _in(way, act)


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
async def test_a_login_that_is_refused_leaves_the_old_connection(
    servers: None, tmp_path: Path, make: Callable[[Path], Way]
) -> None:
    """The file has it before the server: an error that says why, and every request is answered meanwhile."""
    way = make(tmp_path)
    (tmp_path / "wrong").mkdir()
    wrong = make(tmp_path / "wrong")

    async def act(bus: Bus, load: Load) -> None:
        connects = bus.connection
        with pytest.raises((BusError, InvalidInput)) as refused:
            await bus.renew(way.options(wrong.new | ({"user": "nobody"} if "user" in wrong.new else {})))
        assert str(refused.value)
        await load.more()
        assert bus.connection == connects
        await bus.renew(way.options(way.new))
        assert bus.connection == connects + 1

    await _in(way, act)


async def test_a_login_that_the_server_has_replaced_already(servers: None, tmp_path: Path) -> None:
    """The server has cut the old login off: the new one connects, and what waited is answered."""
    way = by_password(tmp_path)

    async def act(bus: Bus, load: Load) -> None:
        await way.revoke()
        await until(lambda: not bus.connected, 10, "the server closes the connection")
        await bus.renew(way.options(way.new))
        assert bus.connected

    await asyncio.to_thread(way.server.start)
    bus = Bus(way.options(way.old))
    try:
        await bus.start()
        assert await bus.wait_connected(10)
        await _serve(bus)
        bus.publish("x", b"")
        await act(bus, Load(await connect(way.server.url, **way.caller)))
        await bus.flush()
    finally:
        await bus.close()
        await asyncio.to_thread(way.server.stop)


async def test_before_the_first_connection(servers: None, tmp_path: Path) -> None:
    """A pod that starts with an old password connects once the file has the new one."""
    way = by_password(tmp_path)
    way.server.extra = way.after
    await asyncio.to_thread(way.server.start)
    bus = Bus(way.options(way.old))
    await bus.start()
    assert not await bus.wait_connected(0.5)
    await bus.renew(way.options(way.new))
    assert await bus.wait_connected(10)
    await bus.close()
    await asyncio.to_thread(way.server.stop)


async def test_everything_subscribed_moves(servers: None, tmp_path: Path) -> None:
    """Subscriptions without a queue, and those that end later, work on the new connection only."""
    way = by_password(tmp_path)
    await asyncio.to_thread(way.server.start)
    bus = Bus(way.options(way.old))
    await bus.start()
    assert await bus.wait_connected(10)
    heard: list[bytes] = []
    kept = await bus.subscribe("all", lambda _s, _r, data, _h: heard.append(data))
    ended = await bus.subscribe("ended", lambda _s, _r, data, _h: heard.append(data))
    await bus.renew(way.options(way.new))
    await ended.close()
    for subject in ("all", "ended"):
        bus.send(wire.publish(subject.encode(), reply=b"", block=b"", payload=subject.encode()))
    await bus.flush()
    await until(lambda: heard, 5, "a message")
    assert heard == [b"all"]
    await kept.close()
    await bus.close()
    await asyncio.to_thread(way.server.stop)
